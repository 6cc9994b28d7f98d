package wire

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestHandshake(t *testing.T) {
	g := Greeting{Version: "5.5.5-10.11.19-MariaDB", Thread: 77, Scramble: NewScramble(), Capabilities: 0x81ffa201, Collation: 45, Status: 2}
	got, err := ParseGreeting(g.Append(nil))
	if err != nil || got != g {
		t.Errorf("got %+v, %v, want %+v", got, err, g)
	}
	for _, capabilities := range []uint32{
		ClientProtocol41 | ClientSecure,
		ClientProtocol41 | ClientSecure | ClientConnectWithDB | ClientPluginAuth,
		ClientProtocol41 | ClientSecure | ClientPluginAuth | ClientLenencAuth,
	} {
		l := Login{Capabilities: capabilities, MaxPacket: 1 << 24, Collation: 45, User: "foo-bar", Answer: Answer("secret", g.Scramble)}
		if capabilities&ClientConnectWithDB != 0 {
			l.Database = "foo_bar"
		}
		if capabilities&ClientPluginAuth != 0 {
			l.Plugin = NativePassword
		}
		got, err := ParseLogin(l.Append(nil))
		if diff := cmp.Diff(l, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
}

// As mariadbd computes it, for a scramble of one letter.
func TestAnswer(t *testing.T) {
	var scramble [ScrambleSize]byte
	copy(scramble[:], bytes.Repeat([]byte("a"), ScrambleSize))
	answer := Answer("secret", scramble)
	if !Proves(answer, "secret", scramble) || Proves(answer, "Secret", scramble) {
		t.Error("the right password does not prove, or a wrong one does")
	}
	other := scramble
	other[3]++
	if Proves(answer, "secret", other) {
		t.Error("an answer holds for another scramble")
	}
	if Proves(nil, "", scramble) || Proves(nil, "secret", scramble) || Proves(answer[:19], "secret", scramble) {
		t.Error("too little proves")
	}
}

func TestChangeUser(t *testing.T) {
	p := append([]byte{byte(ChangeUser)}, "foo\x00\x03abcdb\x00\x2d\x00plugin\x00attributes"...)
	got, err := ParseChangeUser(p, ClientSecure|ClientPluginAuth)
	want := Login{Capabilities: ClientSecure | ClientPluginAuth, User: "foo", Answer: []byte("abc"), Database: "db", Collation: 45, Plugin: "plugin"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestOK(t *testing.T) {
	var changes []byte
	for _, c := range []Change{
		{ChangeVariable, []byte("sql_mode"), []byte("ANSI")}, {ChangeSchema, nil, []byte("foo")}, {ChangeState, nil, []byte("1")}, {9, nil, []byte("?")},
	} {
		changes = AppendChange(changes, c)
	}
	p := append([]byte{0, 0xfc, 1, 2, 7, 2, 0x40, 3, 0}, "\x04info"...)
	p = append(append(p, byte(len(changes))), changes...)
	o, err := ParseOK(p)
	if err != nil || o.Status != 0x4002 || !bytes.Equal(o.Changes, changes) {
		t.Fatalf("got %+v, %v", o, err)
	}
	if got := o.Append(nil, o.Changes); !bytes.Equal(got, p) {
		t.Errorf("round trip: got %x, want %x", got, p)
	}
	if got, want := o.Append(nil, nil), append([]byte{0, 0xfc, 1, 2, 7, 2, 0, 3, 0}, "\x04info"...); !bytes.Equal(got, want) {
		t.Errorf("without changes: got %x, want %x", got, want)
	}
	var kinds []byte
	for c := range Each(o.Changes) {
		kinds = append(kinds, c.Kind)
	}
	if !bytes.Equal(kinds, []byte{0, 1, 2, 9}) {
		t.Errorf("got kinds %v", kinds)
	}
}

func TestError(t *testing.T) {
	for _, e := range []*Error{{1045, "28000", "no"}, {1040, "", "too many"}} {
		if diff := cmp.Diff(e, ParseError(e.Append(nil))); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	if ParseError([]byte{0, 1, 2, 3}) != nil || ParseError([]byte{0xff}) != nil {
		t.Error("what is no error is taken for one")
	}
}

func FuzzHandshake(f *testing.F) {
	f.Add(Greeting{Version: "x", Capabilities: ClientProtocol41}.Append(nil), uint32(0))
	f.Add(Login{Capabilities: ClientProtocol41 | ClientSecure, User: "u", Answer: []byte("abc")}.Append(nil), uint32(ClientSecure))
	f.Add([]byte("\x11u\x00\x01ad\x00\x2d\x00p\x00"), uint32(ClientSecure|ClientPluginAuth))
	f.Fuzz(func(t *testing.T, b []byte, capabilities uint32) {
		if g, err := ParseGreeting(b); err == nil {
			if again, err := ParseGreeting(g.Append(nil)); err != nil || again != g {
				t.Errorf("greeting: %+v is read as %+v, %v", g, again, err)
			}
		}
		if l, err := ParseLogin(b); err == nil && len(l.Answer) < 0xfb {
			l.Capabilities |= ClientSecure
			if again, err := ParseLogin(l.Append(nil)); err != nil || !cmp.Equal(l, again, cmp.Comparer(bytes.Equal)) {
				t.Errorf("login: %+v is read as %+v, %v", l, again, err)
			}
		}
		_, _ = ParseChangeUser(b, capabilities)
		_, _ = ParseSwitch(b)
	})
}

func FuzzOK(f *testing.F) {
	f.Add([]byte{0, 0, 0, 2, 0, 0, 0})
	f.Add([]byte("\x00\x00\x00\x02@\x00\x00\x00\x0f\x00\n\x08sql_mode\x00\x02\x011"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseOK(b)
		if err != nil {
			return
		}
		short := o.Append(nil, nil)
		if len(short) > len(b) {
			t.Errorf("without changes %x is longer than %x", short, b)
		}
		again, err := ParseOK(short)
		if err != nil || again.Status != o.Status&^StatusSessionChanged || len(again.Changes) > 0 {
			t.Errorf("%x: got %+v, %v", short, again, err)
		}
		var same []byte
		for c := range Each(o.Changes) {
			same = AppendChange(same, c)
		}
		if len(same) > len(o.Changes) {
			t.Errorf("the changes %x became longer: %x", o.Changes, same)
		}
		_ = ParseError(b)
	})
}
