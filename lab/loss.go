package lab

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os/exec"
	"strings"

	"trivet/internal/link"
)

// Way is a direction on a server's cable.
type Way string

// The ways.
const (
	In  Way = "in"  // to the server: it is deaf
	Out Way = "out" // from the server: it is mute
)

// Lose has that share of the packets which go one way over the server's cable
// get lost, 100 per cent if all; the server does not notice. Heal ends it. For
// State the server runs.
func (l *Lab) Lose(ctx context.Context, server string, way Way, percent int) error {
	hook, known := map[Way]string{In: "egress", Out: "ingress"}[way] // as this machine's end of the cable sees it
	if !known || percent < 1 || percent > 100 {
		return fmt.Errorf("lose %d per cent %q: the way is in or out, and the share from 1 to 100", percent, way)
	}
	unlock, err := l.lockServer(ctx, server)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := l.init(server); err != nil {
		return fmt.Errorf("lose packets of %s: %w", server, err)
	}
	if err := l.loseNothing(ctx, server); err != nil {
		return fmt.Errorf("lose packets of %s: %w", server, err)
	}
	if err := tc(ctx, "qdisc add dev "+l.Cable(server)+" clsact"); err != nil {
		return fmt.Errorf("lose packets of %s: %w", server, err)
	}
	if err := tc(ctx, "filter add dev "+l.Cable(server)+" "+hook+" bpf da bytecode", dropping(percent)); err != nil {
		return fmt.Errorf("lose packets of %s: %w", server, errors.Join(err, l.loseNothing(ctx, server)))
	}
	return nil
}

// loseNothing takes what Lose did off the server's cable.
func (l *Lab) loseNothing(ctx context.Context, server string) error {
	out, err := exec.CommandContext(ctx, "tc", "qdisc", "show", "dev", l.Cable(server)).Output()
	if err != nil {
		return fmt.Errorf("look for lost packets: %w", err)
	}
	if !strings.Contains(string(out), "clsact") {
		return nil
	}
	return tc(ctx, "qdisc del dev "+l.Cable(server)+" clsact")
}

// dropping is a classic BPF program for tc-bpf(8) that drops that share of all
// packets at random: it needs no module of the kernel's.
func dropping(percent int) string {
	const (
		loadRandom = "32 0 0 4294963256" // ld #random: SKF_AD_OFF + SKF_AD_RANDOM, linux/filter.h
		pass       = "6 0 0 0"           // TC_ACT_OK
		drop       = "6 0 0 2"           // TC_ACT_SHOT
	)
	if percent == 100 {
		return "1," + drop
	}
	jumpIfAbove := fmt.Sprintf("53 1 0 %d", uint64(percent)*(math.MaxUint32+1)/100) // jge over the drop
	return strings.Join([]string{"4", loadRandom, jumpIfAbove, drop, pass}, ",")
}

// tc runs tc(8) with words, and more that are not split.
func tc(ctx context.Context, words string, more ...string) error {
	if out, err := exec.CommandContext(ctx, "tc", append(strings.Fields(words), more...)...).CombinedOutput(); err != nil {
		return fmt.Errorf("tc %s: %w: %s", words, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// whole plugs the server's cable in, and has nothing get lost on it.
func (l *Lab) whole(ctx context.Context, server string) error {
	if err := l.loseNothing(ctx, server); err != nil {
		return err
	}
	return link.SetUp(l.Cable(server))
}
