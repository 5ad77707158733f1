package aws

import (
	"context"
	"time"
)

// margin is how long credentials must still be valid to be used: a request and
// its retries should not outlive them.
const margin = time.Minute

// identity keeps the role's credentials for all requests.
type identity struct {
	ask  func(ctx context.Context) (Role, error)
	held chan Role // one element: what is known; taking it is the lock
}

func newIdentity(ask func(ctx context.Context) (Role, error)) identity {
	held := make(chan Role, 1)
	held <- Role{}
	return identity{ask, held}
}

// get returns credentials, asking for them if none are known or they are about
// to expire.
func (i identity) get(ctx context.Context) (Role, error) {
	select {
	case role := <-i.held:
		if role.Name != "" && (!role.Credentials.CanExpire || time.Until(role.Credentials.Expires) > margin) {
			i.held <- role
			return role, nil
		}
		fresh, err := i.ask(ctx)
		if err != nil {
			i.held <- role
			return Role{}, err
		}
		i.held <- fresh
		return fresh, nil
	case <-ctx.Done():
		return Role{}, context.Cause(ctx)
	}
}

// forget drops credentials that AWS no longer accepts, unless others have
// replaced them meanwhile.
func (i identity) forget(refused Role) {
	role := <-i.held
	if role.Credentials.AccessKeyID == refused.Credentials.AccessKeyID {
		role = Role{}
	}
	i.held <- role
}
