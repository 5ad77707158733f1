package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"
)

// instance is what is known of an instance beside its calls.
type instance struct {
	starts  []start
	private []string // addresses in the VPC, as far as known
	public  []string
	listed  bool // by AddBoots
	region  string
}

// start is when an instance started, as one source has it.
type start struct {
	at     time.Time
	source string
}

const (
	// apart is how much the times may differ that sources have of one start.
	apart = 3 * time.Minute
	// skew is how far a call may precede the start it belongs to: clocks differ, and
	// EventBridge's events come late.
	skew = 2 * time.Minute
)

func (a *Audit) instance(id string) *instance {
	i := a.instances[id]
	if i == nil {
		i = &instance{}
		a.instances[a.intern(id)] = i
	}
	return i
}

// started takes a record of EC2 that says that instances start.
func (a *Audit) started(r *record, at time.Time) {
	if !slices.Contains(starting, r.EventName) || r.ErrorCode != "" {
		a.other.Add(1)
		return
	}
	if a.starts[r.EventID] {
		a.twice++
		return
	}
	a.starts[r.EventID] = true
	set := r.ResponseElements["instancesSet"]
	if r.EventName == "RebootInstances" { // whose answer is only "true"
		set = r.RequestParameters["instancesSet"]
	}
	var list struct {
		Items []struct{ InstanceID, PrivateIPAddress string }
	}
	_ = json.Unmarshal(set, &list) // null, if none
	for _, item := range list.Items {
		if item.InstanceID == "" {
			continue
		}
		i := a.instance(item.InstanceID)
		i.starts = append(i.starts, start{at, r.EventName})
		i.private, i.region = known(i.private, item.PrivateIPAddress), a.intern(r.AWSRegion)
	}
}

// known adds an address to a list, if there is one and it is new.
func known(list []string, addr string) []string {
	if addr == "" || slices.Contains(list, addr) {
		return list
	}
	return append(list, addr)
}

// AddBoots reads starts of instances: the output of `aws ec2 describe-instances`, and
// EventBridge's events "EC2 Instance State-change Notification", one after another or
// in lists, in any order. An instance that is in none of them is unknown.
func (a *Audit) AddBoots(r io.Reader) error {
	type described struct {
		InstanceID, PrivateIPAddress, PublicIPAddress, IPv6Address string
		LaunchTime                                                 time.Time
	}
	type item struct {
		Reservations []struct{ Instances []described }
		Time         time.Time
		Detail       struct {
			ID    string `json:"instance-id"`
			State string
		}
	}
	take := func(v item) error {
		if v.Reservations == nil && v.Detail.ID == "" {
			return fmt.Errorf("neither the output of describe-instances nor an event of EventBridge")
		}
		a.listed = true
		for _, res := range v.Reservations {
			for _, d := range res.Instances {
				i := a.instance(d.InstanceID)
				i.listed = true
				i.starts = append(i.starts, start{d.LaunchTime, "DescribeInstances"})
				i.private, i.public = known(known(i.private, d.PrivateIPAddress), d.IPv6Address), known(known(i.public, d.PublicIPAddress), d.IPv6Address)
			}
		}
		if v.Detail.ID != "" {
			i := a.instance(v.Detail.ID)
			i.listed = true
			if v.Detail.State == "running" {
				i.starts = append(i.starts, start{v.Time, "EventBridge"})
			}
		}
		return nil
	}
	d := json.NewDecoder(r)
	for {
		var value json.RawMessage
		err := d.Decode(&value)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		list := []item{{}}
		if value[0] == '[' {
			err = json.Unmarshal(value, &list)
		} else {
			err = json.Unmarshal(value, &list[0])
		}
		for i := 0; err == nil && i < len(list); i++ {
			err = take(list[i])
		}
		if err != nil {
			return err
		}
	}
}

// settle sorts the starts and makes one of those that are the same.
func (i *instance) settle() {
	slices.SortFunc(i.starts, func(x, y start) int { return x.at.Compare(y.at) })
	var list []start
	for _, s := range i.starts {
		if n := len(list); n > 0 && s.at.Sub(list[n-1].at) < apart && s.source != list[n-1].source {
			continue
		}
		list = append(list, s)
	}
	i.starts = list
}

// start returns the number of the start that a call at a time belongs to, or -1.
func (i *instance) start(at time.Time) int {
	n, _ := slices.BinarySearchFunc(i.starts, at.Add(skew), func(s start, t time.Time) int {
		if s.at.After(t) {
			return 1
		}
		return -1
	})
	return n - 1
}
