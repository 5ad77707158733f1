package ec2sim

import (
	"fmt"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"time"
)

// Forward puts a server of this machine into the VPC: who speaks HTTP to at is answered by
// the one at address. Requests are recorded under the name of a service.
func (c *Cloud) Forward(service string, at netip.AddrPort, address string) error {
	if err := addAddress(c.stack, netip.PrefixFrom(at.Addr(), at.Addr().BitLen())); err != nil {
		return err
	}
	l, err := listen(c.stack, at, 0)
	if err != nil {
		return fmt.Errorf("forwarding to %s: %w", address, err)
	}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: address})
	proxy.ErrorLog, proxy.Transport = quiet, &http.Transport{DisableKeepAlives: true}
	proxy.ModifyResponse = func(r *http.Response) error {
		c.record(Request{Time: time.Now(), Service: service, Operation: r.Request.Method + " " + r.Request.URL.Path, Host: at.Addr().String(), Status: r.StatusCode})
		return nil
	}
	c.serveHTTP(l, proxy)
	return nil
}
