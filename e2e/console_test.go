package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"
)

// TestConsole looks at the console of the lab in a real browser: it shows all
// three servers and what they do. With TRIVET_SCREENSHOT it writes a picture there.
func TestConsole(t *testing.T) {
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("needs chromium: " + err.Error())
	}
	ensureUp(t)
	stop := visit(t, 100)
	defer stop()
	ctx := browser(t)
	var link struct {
		URL string `json:"url"`
	}
	if err := json.Unmarshal([]byte(must(t, "signin", "--json")), &link); err != nil {
		t.Fatal(err)
	}
	do(ctx, t, size(1280, 900), chromedp.Navigate(link.URL))
	if _, err := chromedp.RunResponse(ctx, chromedp.Click(chromedp.CSS("button.primary"))); err != nil {
		t.Fatal(err)
	}
	shows(ctx, t, `document.querySelector("#verdict").dataset.state === "good"`)
	shows(ctx, t, `Number(document.querySelector("#qps").textContent) > 50`)
	shows(ctx, t, `parseFloat(document.querySelector("#queries").textContent) > 20`)
	shows(ctx, t, `[...document.querySelectorAll(".server .number")].filter((n) => Number(n.textContent) > 5).length === 3`)
	shows(ctx, t, `[...document.querySelectorAll(".server")].every((s) => s.querySelectorAll(".busiest tr").length === 3)`)
	shows(ctx, t, `document.querySelector("#events").textContent.includes("signed in")`)
	names, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](`[...document.querySelectorAll(".server h3")].map((e) => e.textContent)`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Servers, names); diff != "" {
		t.Errorf("servers (-want +got):\n%s", diff)
	}
	if file := os.Getenv("TRIVET_SCREENSHOT"); file != "" {
		shoot(ctx, t, file)
	}
}

// browser starts a real Chromium and returns a tab's context.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.IgnoreCertErrors,
		chromedp.Flag("disable-background-networking", true), chromedp.UserDataDir(t.TempDir()))
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

func do(ctx context.Context, t *testing.T, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(ctx, steps...); err != nil {
		t.Fatal(err)
	}
}

// shows waits for an expression to become true in the page.
func shows(ctx context.Context, t *testing.T, expression string) {
	t.Helper()
	if _, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingTimeout(15*time.Second))); err != nil {
		text, _ := chromedp.Run(ctx, chromedp.Evaluate[string](`document.body.innerText`))
		t.Fatalf("wait for %s: %v; the page shows:\n%s", expression, err, text)
	}
}

// size gives the page a size, in the light colours.
func size(width, height int64) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
		_, err := cdp.Call(ctx, target, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{
			Width: width, Height: height, DeviceScaleFactor: 1,
		})
		return err
	})
}

func shoot(ctx context.Context, t *testing.T, file string) {
	t.Helper()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, picture, 0o600); err != nil {
		t.Fatal(err)
	}
}
