package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"trivet/site"
)

// S3Name is what the bucket is called among the places of copies.
const S3Name = "s3"

// bucket is a store in S3-compatible storage.
type bucket struct {
	client         *minio.Client
	bucket, prefix string
}

// newBucket returns the store that the site names; no connection is made yet.
func newBucket(s site.S3, keyID, secret string) (*bucket, error) {
	if keyID == "" || secret == "" {
		return nil, fmt.Errorf("use S3: the site's secrets file lacks %s or %s", site.S3KeyID, site.S3Secret)
	}
	host, secure := strings.TrimPrefix(s.Endpoint, "http://"), false
	if rest, ok := strings.CutPrefix(s.Endpoint, "https://"); ok {
		host, secure = rest, true
	}
	t, err := minio.DefaultTransport(secure)
	if err != nil {
		return nil, fmt.Errorf("use S3: %w", err)
	}
	t.ResponseHeaderTimeout, t.IdleConnTimeout, t.MaxIdleConnsPerHost = peerWait, 30*time.Second, 2
	c, err := minio.New(strings.TrimSuffix(host, "/"), &minio.Options{
		Creds: credentials.NewStaticV4(keyID, secret, ""), Secure: secure, Region: s.Region, Transport: t, MaxRetries: 3,
	})
	if err != nil {
		return nil, fmt.Errorf("use S3: %w", err)
	}
	return &bucket{c, s.Bucket, strings.TrimPrefix(s.Prefix, "/")}, nil
}

func (b *bucket) name() string { return S3Name }

func (b *bucket) put(ctx context.Context, o object) error {
	r, err := o.open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	_, err = b.client.PutObject(ctx, b.bucket, b.prefix+o.name, r, o.size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", DisableMultipart: o.size <= 64<<20,
	})
	// A server that refuses before it has read all may be heard only as a
	// connection that breaks: a question without a body gets its word.
	if err != nil && !errors.As(err, new(minio.ErrorResponse)) {
		if _, refused := b.list(ctx, o.name); refused != nil {
			err = refused
		}
	}
	if err != nil {
		return fmt.Errorf("put %s into bucket %s: %w", o.name, b.bucket, err)
	}
	return nil
}

func (b *bucket) get(ctx context.Context, name string) (io.ReadCloser, error) {
	o, err := b.client.GetObject(ctx, b.bucket, b.prefix+name, minio.GetObjectOptions{})
	if err == nil {
		_, err = o.Stat() // until here nothing was asked for
	}
	if minio.ToErrorResponse(err).StatusCode == http.StatusNotFound {
		return nil, errMissing
	}
	if err != nil {
		return nil, fmt.Errorf("get %s from bucket %s: %w", name, b.bucket, err)
	}
	return o, nil
}

func (b *bucket) list(ctx context.Context, prefix string) ([]entry, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the lister, should it not be at its end
	var out []entry
	for o := range b.client.ListObjects(ctx, b.bucket, minio.ListObjectsOptions{Prefix: b.prefix + prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, fmt.Errorf("list bucket %s: %w", b.bucket, o.Err)
		}
		if name := strings.TrimPrefix(o.Key, b.prefix); objectForm.MatchString(name) {
			out = append(out, entry{name, o.Size})
		}
	}
	return out, nil
}

func (b *bucket) remove(ctx context.Context, name string) error {
	if err := b.client.RemoveObject(ctx, b.bucket, b.prefix+name, minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("remove %s from bucket %s: %w", name, b.bucket, err)
	}
	return nil
}
