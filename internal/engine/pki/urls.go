package pki

import (
	"context"
	"crypto/x509"
	"net/url"
	"strings"

	"github.com/cofferhq/coffer/internal/engine/rows"
	"github.com/cofferhq/coffer/internal/fault"
	"github.com/cofferhq/coffer/internal/route"
	"github.com/cofferhq/coffer/internal/storage"
	"github.com/cofferhq/coffer/internal/wire"
)

var urlRoutes = []route.Route[*Engine]{
	route.New("GET", "config/urls", "Read the URLs that certificates carry.", (*Engine).readURLs,
		route.Shows("config/urls", "", "")),
	route.New("POST", "config/urls", "Set the URLs that certificates carry, where their issuer has none of its own.", (*Engine).writeURLs,
		route.Shows("config/urls", `{"issuing_certificates":"https://coffer.example.com/v1/pki/ca","crl_distribution_points":"https://coffer.example.com/v1/pki/crl"}`, "")),
	route.New("GET", "config/cluster", "Read where this mount is reached.", (*Engine).readSite,
		route.Shows("config/cluster", "", "")),
	route.New("POST", "config/cluster", "Set where this mount is reached, for the URLs that it writes.", (*Engine).writeSite,
		route.Shows("config/cluster", `{"path":"https://coffer.example.com/v1/pki","aia_path":"http://pki.example.com/v1/pki"}`, "")),
}

// WriteURLs sets the URLs that certificates carry.
type WriteURLs struct {
	Issuing   *wire.Strings `json:"issuing_certificates" doc:"URLs of the issuer's certificate."`
	CRL       *wire.Strings `json:"crl_distribution_points" doc:"URLs of the list of revoked certificates."`
	OCSP      *wire.Strings `json:"ocsp_servers" doc:"URLs of the OCSP responder."`
	Templates *wire.Bool    `json:"enable_templating" doc:"Fill {{issuer_id}}, {{cluster_path}} and {{cluster_aia_path}} in."`
}

// URLs are the URLs that certificates carry.
type URLs struct {
	route.Notes
	Issuing   wire.Strings `json:"issuing_certificates"`
	CRL       wire.Strings `json:"crl_distribution_points"`
	OCSP      wire.Strings `json:"ocsp_servers"`
	Templates bool         `json:"enable_templating"`
}

func (e *Engine) readURLs(ctx context.Context, _ route.Caller, _ route.Nothing) (URLs, error) {
	a, err := storage.LoadFrom[addresses](ctx, e.env.Storage, urlsRow)
	if err != nil || a == nil {
		return URLs{}, err
	}
	return URLs{Issuing: a.Issuing, CRL: a.CRL, OCSP: a.OCSP, Templates: a.Templates}, nil
}

func (e *Engine) writeURLs(ctx context.Context, _ route.Caller, in WriteURLs) (URLs, error) {
	var out URLs
	_, err := e.env.Storage.Update(ctx, func(t storage.Txn) error {
		a, err := storage.Load[addresses](t, urlsRow)
		if err != nil {
			return err
		}
		if a == nil {
			a = &addresses{}
		}
		rows.Set(&a.Issuing, in.Issuing)
		rows.Set(&a.CRL, in.CRL)
		rows.Set(&a.OCSP, in.OCSP)
		rows.Set((*wire.Bool)(&a.Templates), in.Templates)
		if err := a.check(); err != nil {
			return err
		}
		out = URLs{Issuing: a.Issuing, CRL: a.CRL, OCSP: a.OCSP, Templates: a.Templates}
		return storage.Save(t, urlsRow, a)
	})
	return out, err
}

// Site is where a mount is reached.
type Site struct {
	Path string `json:"path" doc:"The URL of the mount, /v1/ and its path included, by which ACME is reached."`
	AIA  string `json:"aia_path" doc:"The URL of the mount by which certificates and lists are fetched; plain http is usual."`
}

// WriteSite sets it.
type WriteSite struct {
	Path *string `json:"path" doc:"The URL of the mount, /v1/ and its path included, by which ACME is reached."`
	AIA  *string `json:"aia_path" doc:"The URL of the mount by which certificates and lists are fetched; plain http is usual."`
}

func (e *Engine) readSite(ctx context.Context, _ route.Caller, _ route.Nothing) (Site, error) {
	s, err := storage.LoadFrom[Site](ctx, e.env.Storage, siteRow)
	if err != nil || s == nil {
		return Site{}, err
	}
	return *s, nil
}

func (e *Engine) writeSite(ctx context.Context, _ route.Caller, in WriteSite) (out Site, err error) {
	for name, text := range map[string]*string{"path": in.Path, "aia_path": in.AIA} {
		if text == nil || *text == "" {
			continue
		}
		if u, err := url.Parse(*text); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.RawQuery != "" || u.Fragment != "" || len(*text) > 1024 {
			return out, fault.New(fault.Invalid, "%s: it is no URL such as https://coffer.example.com/v1/pki", name)
		}
	}
	_, err = e.env.Storage.Update(ctx, func(t storage.Txn) error {
		s, err := storage.Load[Site](t, siteRow)
		if err != nil {
			return err
		}
		if s == nil {
			s = &Site{}
		}
		rows.Set(&s.Path, in.Path)
		rows.Set(&s.AIA, in.AIA)
		s.Path, s.AIA = strings.TrimRight(s.Path, "/"), strings.TrimRight(s.AIA, "/")
		out = *s
		return storage.Save(t, siteRow, s)
	})
	return out, err
}

// address writes to a certificate where its issuer is found.
func (e *Engine) address(ctx context.Context, t *x509.Certificate, by *issuer) error {
	a := by.URLs
	if len(a.Issuing)+len(a.CRL)+len(a.OCSP) == 0 {
		row, err := e.env.Recent(ctx, urlsRow)
		general, err := storage.Decode[addresses](urlsRow, row, err)
		if err != nil || general == nil {
			return err
		}
		a = *general
	}
	fill := func(list []string) []string { return list }
	if a.Templates {
		row, err := e.env.Recent(ctx, siteRow)
		s, err := storage.Decode[Site](siteRow, row, err)
		if err != nil {
			return err
		}
		if s == nil {
			s = &Site{}
		}
		replace := strings.NewReplacer("{{issuer_id}}", by.ID, "{{cluster_path}}", s.Path, "{{cluster_aia_path}}", s.AIA)
		fill = func(list []string) (out []string) {
			for _, text := range list {
				if strings.Contains(text, "{{cluster_path}}") && s.Path == "" || strings.Contains(text, "{{cluster_aia_path}}") && s.AIA == "" {
					continue
				}
				out = append(out, replace.Replace(text))
			}
			return out
		}
	}
	t.IssuingCertificateURL, t.CRLDistributionPoints, t.OCSPServer = fill(a.Issuing), fill(a.CRL), fill(a.OCSP)
	return nil
}
