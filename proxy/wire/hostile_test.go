package wire_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"trivet/proxy/wire"
	"trivet/proxy/wire/hostile"
)

var hostileLimits = &wire.Limits{Target: 8 << 10, Field: 16 << 10, Head: 64 << 10, Count: 100}

// server is what a connection makes of a client's bytes by the codec alone.
type server struct {
	in        []byte
	forwarded []hostile.Forwarded
	fields    [][]wire.Field
	status    int
	close     bool
	wait      bool
}

func (s *server) run() {
	for len(s.in) > 0 && !s.close && !s.wait {
		if err := s.next(); err != nil {
			e, _ := errors.AsType[*wire.Error](err)
			s.status, s.close = e.Status, true
		}
	}
}

func (s *server) next() error {
	end, err := wire.HeadEnd(s.in, 0)
	if err != nil || end == 0 {
		s.wait = err == nil
		return err
	}
	var r wire.Request
	if err := r.Parse(s.in[:end], hostileLimits); err != nil {
		return err
	}
	s.in = s.in[end:]
	body, err := s.body(&r)
	if err != nil {
		return err
	}
	s.close = r.Close
	s.fields = append(s.fields, slices.Clone(r.Fields))
	s.forwarded = append(s.forwarded, hostile.Forwarded{
		Method: string(r.Method), Path: string(r.Path), Host: string(r.Host), Body: body,
	})
	return nil
}

func (s *server) body(r *wire.Request) (string, error) {
	if r.Length >= 0 {
		n := min(int(r.Length), len(s.in))
		s.wait = n < int(r.Length)
		body := string(s.in[:n])
		s.in = s.in[n:]
		return body, nil
	}
	var c wire.Chunks
	body, n, err := readChunks(&c, s.in, max(len(s.in), 1))
	s.in = s.in[n:]
	s.wait = !c.Done() && err == nil
	return string(body), err
}

func TestHostile(t *testing.T) {
	all := hostile.Cases()
	if len(all) < 120 {
		t.Errorf("got %d cases, want at least 120", len(all))
	}
	for _, c := range all {
		t.Run(c.Name, func(t *testing.T) {
			s := &server{in: c.Send}
			s.run()
			if s.status != c.Status || s.close != c.Close || s.wait != c.Wait {
				t.Errorf("%s\ngot status %d, close %v, wait %v; want %d, %v, %v", c.Why, s.status, s.close, s.wait, c.Status, c.Close, c.Wait)
			}
			ignore := cmpopts.IgnoreFields(hostile.Forwarded{}, "Without")
			if diff := cmp.Diff(c.Forwarded, s.forwarded, ignore, cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%s\nforwarded: -want +got:\n%s", c.Why, diff)
			}
			for i, f := range c.Forwarded {
				checkWithout(t, f.Without, s.fields[i])
			}
		})
	}
}

// checkWithout wants that the Kind of each field of those names says that it is not forwarded.
func checkWithout(t *testing.T, names []string, fields []wire.Field) {
	t.Helper()
	for _, f := range fields {
		named := slices.ContainsFunc(names, f.Is)
		if named && !f.Kind.Framing() && (f.Kind < wire.Claim || f.Kind > wire.XForwarded) {
			t.Errorf("%s would be forwarded: it has the kind %d", f.Name, f.Kind)
		}
	}
}
