package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"trivet/internal/mtls"
	"trivet/internal/part"
)

const (
	digestHead  = "X-Trivet-Sha256"
	objectsPath = "/v1/objects/"
	objectLimit = 4 << 30 // bytes of one object: a transaction is never cut in two
	peerWait    = 20 * time.Second
)

// peer is the folder of another server, by HTTP over mutual TLS.
type peer struct {
	server string
	base   string
	http   *http.Client
}

// newPeer returns the store of a server; no connection is made yet.
func newPeer(server, address string, port int, source *mtls.Source) *peer {
	config := mtls.Client(source, server, part.Database)
	d := net.Dialer{Timeout: 2 * time.Second, KeepAlive: 15 * time.Second}
	t := &http.Transport{
		DialContext: d.DialContext, TLSClientConfig: config, TLSHandshakeTimeout: 5 * time.Second,
		ResponseHeaderTimeout: peerWait, IdleConnTimeout: 30 * time.Second, MaxIdleConnsPerHost: 2, DisableCompression: true,
	}
	return &peer{server, "https://" + net.JoinHostPort(address, strconv.Itoa(port)), &http.Client{Transport: t}}
}

func (p *peer) name() string { return p.server }

func (p *peer) close() { p.http.CloseIdleConnections() }

// do returns an answer with status 200.
func (p *peer) do(req *http.Request) (*http.Response, error) {
	res, err := p.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("reach %s: %w", p.server, errors.Unwrap(err))
	}
	switch res.StatusCode {
	case http.StatusOK:
		return res, nil
	case http.StatusNotFound:
		err = errMissing
	default:
		text, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
		err = fmt.Errorf("%s refused: %s", p.server, strings.TrimSpace(string(text)))
	}
	_ = res.Body.Close()
	return nil, err
}

func (p *peer) put(ctx context.Context, o object) error {
	body, err := o.open()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, p.base+objectsPath+o.name, body)
	if err != nil {
		_ = body.Close()
		return err
	}
	req.ContentLength = o.size
	req.Header.Set(digestHead, o.sha256)
	res, err := p.do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func (p *peer) get(ctx context.Context, name string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+objectsPath+name, nil)
	if err != nil {
		return nil, err
	}
	res, err := p.do(req)
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

func (p *peer) list(ctx context.Context, prefix string) ([]entry, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/v1/list?prefix="+url.QueryEscape(prefix), nil)
	if err != nil {
		return nil, err
	}
	res, err := p.do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	var out []entry
	if err := json.NewDecoder(res.Body).Decode(&out); err != nil {
		return nil, fmt.Errorf("read the list of %s: %w", p.server, err)
	}
	return out, nil
}

func (p *peer) remove(ctx context.Context, name string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, p.base+objectsPath+name, nil)
	if err != nil {
		return err
	}
	res, err := p.do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// room asks whether the server has room for so many bytes.
func (p *peer) room(ctx context.Context, size int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"/v1/room?size="+strconv.FormatInt(size, 10), nil)
	if err != nil {
		return err
	}
	res, err := p.do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

// shelf is the folder as its peers see it: an http.Handler.
func shelf(f folder) http.Handler {
	mux := http.NewServeMux()
	refuse := func(w http.ResponseWriter, err error) {
		code := http.StatusBadRequest
		if errors.Is(err, errMissing) {
			code = http.StatusNotFound
		}
		http.Error(w, err.Error(), code)
	}
	mux.HandleFunc("PUT "+objectsPath+"{name...}", func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || r.ContentLength > objectLimit {
			refuse(w, fmt.Errorf("an object of %d bytes", r.ContentLength))
			return
		}
		o := object{r.PathValue("name"), r.ContentLength, r.Header.Get(digestHead), func() (io.ReadCloser, error) { return r.Body, nil }}
		if err := f.put(r.Context(), o); err != nil {
			refuse(w, err)
		}
	})
	mux.HandleFunc("GET "+objectsPath+"{name...}", func(w http.ResponseWriter, r *http.Request) {
		body, err := f.get(r.Context(), r.PathValue("name"))
		if err != nil {
			refuse(w, err)
			return
		}
		defer func() { _ = body.Close() }()
		_, _ = io.Copy(w, body)
	})
	mux.HandleFunc("DELETE "+objectsPath+"{name...}", func(w http.ResponseWriter, r *http.Request) {
		if err := f.remove(r.Context(), r.PathValue("name")); err != nil {
			refuse(w, err)
		}
	})
	mux.HandleFunc("GET /v1/list", func(w http.ResponseWriter, r *http.Request) {
		list, err := f.list(r.Context(), r.FormValue("prefix"))
		if err != nil {
			refuse(w, err)
			return
		}
		_ = json.NewEncoder(w).Encode(list)
	})
	mux.HandleFunc("GET /v1/room", func(w http.ResponseWriter, r *http.Request) {
		size, err := strconv.ParseInt(r.FormValue("size"), 10, 64)
		if err == nil {
			err = f.room(size)
		}
		if err != nil {
			refuse(w, err)
		}
	})
	return mux
}
