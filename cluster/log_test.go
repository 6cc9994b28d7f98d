package cluster

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
)

func TestLogIsBounded(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(slog.New(slog.NewTextHandler(&out, nil)))
	log.Info("chatter")
	log.Warn("simple token is not cryptographically signed")
	for range 3 {
		log.With(zap.String("member", "s1")).Warn("lost a peer", zap.Error(errors.New("broken")), zap.String("peer-id", "7"))
	}
	text := out.String()
	if n := strings.Count(text, "\n"); n != 1 || !strings.Contains(text, `level=WARN msg="lost a peer" by=etcd error=broken peer-id=7`) {
		t.Errorf("got %d lines, want one:\n%s", n, text)
	}
	for i := range 1000 {
		log.Error(fmt.Sprint("kind ", i))
	}
	if n := strings.Count(out.String(), "\n"); n > logKinds {
		t.Errorf("got %d lines in a minute, want at most %d", n, logKinds)
	}
}
