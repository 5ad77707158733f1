package aws

import (
	"crypto/x509"
	_ "embed"
	"errors"
	"os"
)

// amazonRoots are the Amazon Trust Services roots (Amazon Root CA 1 to 4 and
// Starfield Services Root Certificate Authority G2) in PEM, as Mozilla's list
// has them. All of AWS' public endpoints chain to one of them.
//
//go:embed roots.pem
var amazonRoots []byte

// roots returns the authorities to trust: those given or Amazon's, and those of
// a configured bundle.
func roots(given *x509.CertPool, bundle string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if given != nil {
		pool = given.Clone()
	} else if !pool.AppendCertsFromPEM(amazonRoots) {
		return nil, errors.New("no certificate in the embedded roots")
	}
	if bundle == "" {
		return pool, nil
	}
	const op = "reading the CA bundle "
	const hint = "put the file that aws.ca_bundle names, in PEM, into the image"
	data, err := os.ReadFile(bundle)
	if err != nil {
		return nil, &Error{Op: op + bundle, Err: err, Hint: hint}
	}
	if !pool.AppendCertsFromPEM(data) {
		return nil, &Error{Op: op + bundle, Err: errors.New("no certificate in it"), Hint: hint}
	}
	return pool, nil
}
