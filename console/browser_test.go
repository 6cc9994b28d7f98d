package console_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"trivet/console"
)

// serve starts a console over TLS whose one valid token is "once".
func serve(t *testing.T, s console.Source) *httptest.Server {
	t.Helper()
	var mu sync.Mutex
	used := false
	c := console.New(console.Config{
		Log: slog.New(slog.DiscardHandler), Source: s,
		Key: func() []byte { return []byte("a key of the tests") },
		Redeem: func(_ context.Context, hash string) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			ok := hash == onceHash && !used
			used = used || ok
			return ok, nil
		},
	})
	srv := httptest.NewUnstartedServer(c)
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	return srv
}

// browser starts a real Chromium and returns a tab's context and what its console said that is not right.
func browser(t *testing.T) (context.Context, *complaints) {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("needs chromium: " + err.Error())
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-background-networking", true), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	var c complaints
	if err := chromedp.Listen(ctx, c.hear); err != nil {
		t.Fatal(err)
	}
	return ctx, &c
}

// complaints are what a browser says that is not right.
type complaints struct {
	mu   sync.Mutex
	said []string
}

func (c *complaints) hear(event any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		c.said = append(c.said, e.ExceptionDetails.Text)
	case *log.EventEntryAdded:
		if e.Entry.Level == "error" || e.Entry.Level == "warning" {
			c.said = append(c.said, fmt.Sprint(e.Entry.Level, ": ", e.Entry.Text, " ", e.Entry.URL))
		}
	}
}

func (c *complaints) all() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.said...)
}

// signIn opens the one-time link and presses its button.
func signIn(ctx context.Context, t *testing.T, url string) {
	t.Helper()
	do(ctx, t, chromedp.Navigate(url+"/signin?token=once"))
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS("button.primary"))); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, painted)
}

func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// evaluate returns an expression's value in the page.
func evaluate[T any](ctx context.Context, t *testing.T, expression string) T {
	t.Helper()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// until waits for an expression to become true in the page.
func until(ctx context.Context, t *testing.T, expression string) {
	t.Helper()
	_, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(15*time.Second)))
	if err != nil {
		t.Fatalf("wait for %s: %v", expression, err)
	}
}

const painted = `document.querySelectorAll(".plot canvas").length === 4 && /\d/.test(document.querySelector("#qps").textContent)`

// emulate gives the page a size and a colour scheme.
func emulate(ctx context.Context, t *testing.T, width, height int64, scheme string) {
	t.Helper()
	do(ctx, t, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: height, DeviceScaleFactor: 1, Mobile: width < 500,
		})
		if err != nil {
			return err
		}
		_, err = cdp.Call(ctx, target, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	}))
}

// run adds a second to d each second, until the test ends.
func run(t *testing.T, d *demo, trouble bool) {
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case at := <-tick.C:
				d.tick(at.Unix()+1, trouble)
			}
		}
	})
	t.Cleanup(func() { close(stop); wg.Wait() })
}

func TestPageIsLive(t *testing.T) {
	d := newDemo(true)
	ctx, said := browser(t)
	run(t, d, true)
	srv := serve(t, d)
	emulate(ctx, t, 375, 812, "dark")
	signIn(ctx, t, srv.URL)
	first := evaluate[string](ctx, t, `document.querySelector("#qps").textContent`)
	until(ctx, t, fmt.Sprintf(`document.querySelector("#qps").textContent !== %q`, first))
	verdict := evaluate[string](ctx, t, `document.querySelector("#verdict-title").textContent`)
	if want := "s3 is unreachable, 2 parts have a problem and alert busy fires"; verdict != want {
		t.Errorf("verdict: got %q, want %q", verdict, want)
	}
	if evaluate[bool](ctx, t, `document.documentElement.scrollWidth > 375`) {
		t.Error("the page is wider than a phone of 375 px")
	}
	if got := said.all(); len(got) > 0 {
		t.Errorf("the browser complains:\n%s", strings.Join(got, "\n"))
	}
}

// TestPageReconnects cuts the page's connection: it comes back by itself.
func TestPageReconnects(t *testing.T) {
	d := newDemo(false)
	ctx, _ := browser(t)
	run(t, d, false)
	srv := serve(t, d)
	signIn(ctx, t, srv.URL)
	until(ctx, t, `document.querySelector("#live").dataset.state === "on"`)
	srv.CloseClientConnections()
	until(ctx, t, `document.querySelector("#live").dataset.state === "off"`)
	until(ctx, t, `document.querySelector("#live").dataset.state === "on"`)
}

// TestScreenshot writes pictures of the console to the folder in TRIVET_SCREENSHOTS.
func TestScreenshot(t *testing.T) {
	dir := os.Getenv("TRIVET_SCREENSHOTS")
	if dir == "" {
		t.Skip("needs TRIVET_SCREENSHOTS: the folder for the pictures")
	}
	for _, trouble := range []bool{false, true} {
		name := map[bool]string{false: "well", true: "trouble"}[trouble]
		t.Run(name, func(t *testing.T) {
			d := newDemo(trouble)
			ctx, _ := browser(t)
			run(t, d, trouble)
			srv := serve(t, d)
			emulate(ctx, t, 1280, 900, "light")
			do(ctx, t, chromedp.Navigate(srv.URL+"/signin?token=once"))
			shoot(ctx, t, filepath.Join(dir, "signin.png"))
			signIn(ctx, t, srv.URL)
			for _, scheme := range []string{"light", "dark"} {
				for _, size := range [][2]int64{{1280, 900}, {375, 812}} {
					emulate(ctx, t, size[0], size[1], scheme)
					do(ctx, t, chromedp.Reload())
					until(ctx, t, painted)
					shoot(ctx, t, filepath.Join(dir, fmt.Sprintf("%s-%s-%d.png", name, scheme, size[0])))
				}
			}
		})
	}
}

// shoot takes a picture of the whole page, once it has been still for two frames.
func shoot(ctx context.Context, t *testing.T, file string) {
	t.Helper()
	until(ctx, t, `new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))`)
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
}
