package backup

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"

	"trivet/site"
)

// newS3 starts a real S3 server, versitygw over a folder, with one bucket.
func newS3(t *testing.T) site.S3 {
	t.Helper()
	server := os.Getenv("TEST_S3_SERVER")
	if server == "" {
		t.Skipf("needs the S3 server in s3server/, built by root: %s", os.Getenv("TEST_S3_WHY"))
	}
	dir, err := os.MkdirTemp("/tmp", "tbk-s3-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Mkdir(dir+"/copies", 0o700); err != nil {
		t.Fatal(err)
	}
	address := fmt.Sprintf("127.81.0.1:%d", freePort(t))
	cmd := program(t.Context(), server, "--access", "id", "--secret", "secret", "--port", address, "--quiet", "posix", "--nometa", dir)
	said := &said{}
	cmd.Stdout, cmd.Stderr = said, said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("S3 server: %s", said.text)
		}
	})
	eventually(t, "the S3 server answers", 20*time.Second, func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return site.S3{Endpoint: "http://" + address, Bucket: "copies", Region: "us-east-1", Prefix: "foo/bar/"}
}

// TestS3 keeps objects in a real S3 server as in a folder: whole, listed, and
// no more once they are removed; and refuses a wrong secret.
func TestS3(t *testing.T) {
	where := newS3(t)
	b, err := newBucket(where, "id", "secret")
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("0123456789abcdef"), pieceSize/16)
	names := []string{fullPrefix + "20261123-143205-s3/00001", fullPrefix + "20261123-143205-s3/manifest.json", piece(1, 2, 3, 4).name()}
	for _, name := range names {
		if err := b.put(t.Context(), bytesObject(name, large)); err != nil {
			t.Fatal(err)
		}
	}
	list, err := b.list(t.Context(), "")
	want := []entry{{names[0], pieceSize}, {names[1], pieceSize}, {names[2], pieceSize}}
	if diff := cmp.Diff(want, list); diff != "" || err != nil {
		t.Errorf("list (-want +got): %v\n%s", err, diff)
	}
	if list, err := b.list(t.Context(), logPrefix); err != nil || len(list) != 1 {
		t.Errorf("list of the log = %v, %v", list, err)
	}
	r, err := b.get(t.Context(), names[0])
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, large) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
	_ = r.Close()
	if err := b.remove(t.Context(), names[0]); err != nil {
		t.Error(err)
	}
	if _, err := b.get(t.Context(), names[0]); !errors.Is(err, errMissing) {
		t.Errorf("get of what was removed = %v", err)
	}
	stranger, err := newBucket(where, "id", "another")
	if err != nil {
		t.Fatal(err)
	}
	err = stranger.put(t.Context(), bytesObject(names[0], large))
	if refused := as[minio.ErrorResponse](t, err); refused.Code != "SignatureDoesNotMatch" {
		t.Errorf("put with a wrong secret = %v", err)
	}
	if _, err := newBucket(where, "id", ""); err == nil || !strings.Contains(err.Error(), site.S3Secret) {
		t.Errorf("no secret = %v", err)
	}
}

// TestRestoreFromS3: all three servers' disks are gone, and the bucket is left.
func TestRestoreFromS3(t *testing.T) {
	where := newS3(t)
	b := newBench(t)
	s3, err := newBucket(where, "id", "secret")
	if err != nil {
		t.Fatal(err)
	}
	b.places = append(b.places, s3)
	b.db.do(t, "CREATE DATABASE app; CREATE TABLE app.m (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT)")
	m := b.backup()
	await, stop := b.archive(m)
	b.db.do(t, "INSERT INTO app.m (t) VALUES ('in the log')")
	await()
	stop()
	b.places = []store{s3}
	if _, err := b.restore("rescued", Target{}); err != nil {
		t.Fatal(err)
	}
	if got := b.db.do(t, "SELECT t FROM rescued.m"); got != "in the log" {
		t.Errorf("rescued = %q", got)
	}
}
