package backup

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"trivet/database/sst"
	"trivet/internal/process"
)

// TestMain runs the tests as user mysql, as which the worker runs, if they were
// started by root: mariadbd knows that user by its socket and root not. The
// test binary is also the program of full copies, as trivet is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "sst" {
		if err := sst.SST(context.Background(), os.Args[2:], os.Stdin, os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, "sst:", err)
			os.Exit(1)
		}
		return
	}
	if os.Geteuid() != 0 {
		os.Exit(m.Run())
	}
	bucket, why := buildS3()
	cred, err := process.Credential("mysql")
	if err != nil {
		os.Exit(m.Run()) // those that need mariadbd skip
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// Only root may go through the folder of the build, so that the binary is reached by its descriptor.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: cred, Pdeathsig: syscall.SIGKILL}
	cmd.Env = env("HOME=/tmp", "TMPDIR=/tmp", "TEST_S3_SERVER="+bucket, "TEST_S3_WHY="+why)
	err = cmd.Run()
	if bucket != "" {
		_ = os.Remove(bucket)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// buildS3 builds the S3 server, a module of its own in s3server/, if a test wants
// it; user mysql could not. It returns the program, or why there is none.
func buildS3() (bin, why string) {
	flag.Parse()
	if run := flag.Lookup("test.run").Value.String(); run != "" && !strings.Contains(run, "S3") {
		return "", "not asked for"
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err.Error()
	}
	bin = filepath.Join(dir, "trivet-test", "versitygw") // linked anew only if it has changed
	build := exec.Command("go", "build", "-o", bin, "github.com/versity/versitygw/cmd/versitygw")
	build.Dir, build.Env = "s3server", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Sprintf("build: %v: %s", err, out)
	}
	to := filepath.Join(os.TempDir(), fmt.Sprintf("trivet-test-s3-%d", os.Getpid()))
	if err := copyFile(bin, to); err != nil {
		return "", err.Error()
	}
	return to, ""
}

// copyFile makes a program that others may run; they may not go where the cache is.
func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

func env(more ...string) []string {
	var out []string
	for _, e := range os.Environ() {
		name, _, _ := strings.Cut(e, "=")
		if name != "HOME" && name != "TMPDIR" {
			out = append(out, e)
		}
	}
	return append(out, more...)
}
