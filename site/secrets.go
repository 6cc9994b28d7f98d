package site

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
)

// maxSecrets is the largest secrets file that is read: all of it travels in the cluster's state.
const maxSecrets = 64 << 10

// ParseSecrets reads the lines KEY=value of a secrets file. Empty lines and
// lines that begin with # are skipped; a value is taken as it stands, up to the
// end of the line. The error names lines and keys, never a value.
func ParseSecrets(text string) (map[string]string, error) {
	secrets := map[string]string{}
	var errs []error
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		if strings.TrimSpace(line) == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		_, twice := secrets[key]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("line %d is not of the form KEY=value", i+1))
		case !variableForm.MatchString(key):
			errs = append(errs, fmt.Errorf("line %d: what stands before = is not the name of a variable", i+1))
		case key == S3KeyID, key == S3Secret:
		case variable(key) != "":
			errs = append(errs, fmt.Errorf("line %d: %s %s", i+1, key, variable(key)))
		case twice:
			errs = append(errs, fmt.Errorf("line %d: %s is there twice", i+1, key))
		case strings.ContainsRune(value, 0):
			errs = append(errs, fmt.Errorf("line %d: the value of %s holds a NUL byte", i+1, key))
		}
		secrets[key] = value
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("parse secrets: %w", err)
	}
	return secrets, nil
}

// SplitSecrets parts what is the app's in a secrets file from what is trivet's own.
func SplitSecrets(text string) (app string, own map[string]string) {
	own = map[string]string{}
	var kept strings.Builder
	for line := range strings.SplitAfterSeq(text, "\n") {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), "=")
		if key == S3KeyID || key == S3Secret {
			own[key] = value
			continue
		}
		kept.WriteString(line)
	}
	return kept.String(), own
}

// ReadSecrets returns the content of the site's secrets file, for
// part.SecretEnvironment; "" if the site has none.
func (s *Site) ReadSecrets() (string, error) {
	if s.App.Secrets == "" {
		return "", nil
	}
	path := s.Path(s.App.Secrets)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("there is no file %s", path)
	case err != nil:
		return "", err
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a file", path)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("others may read %s (mode %04o); run: chmod 600 %s", path, info.Mode().Perm(), path)
	case info.Size() > maxSecrets:
		return "", fmt.Errorf("%s is larger than %d KiB", path, maxSecrets>>10)
	}
	data, err := os.ReadFile(path)
	return string(data), err
}

// secrets notes what is wrong in the site's secrets file, and where it lies.
func (r *report) secrets(s *Site) {
	const key = "app.secrets"
	text, err := s.ReadSecrets()
	if err != nil {
		r.add(key, "%v", err)
		return
	}
	path := s.Path(s.App.Secrets)
	if s.Web.Static != "" && within(s.Path(s.Web.Static), path) {
		r.add(key, "the file lies in web.static, where visitors could read it")
	}
	if s.App.Source != "" && s.App.Build == "" && within(s.Path(s.App.Source), path) {
		r.add(key, "the file lies in app.source, which is copied to the servers as it is; move it out")
	}
	secrets, err := ParseSecrets(text)
	if err != nil {
		r.add(key, "%s: %s", s.App.Secrets, strings.ReplaceAll(strings.TrimPrefix(err.Error(), "parse secrets: "), "\n", "; "))
		return
	}
	for _, name := range slices.Sorted(maps.Keys(s.App.Environment)) {
		if _, both := secrets[name]; both {
			r.add(join("app.environment", name), "is also in the secrets file %s", s.App.Secrets)
		}
	}
}

// bucketKeys notes that the secrets file lacks the keys of the bucket for the
// database's copies.
func (r *report) bucketKeys(s *Site) {
	text, err := s.ReadSecrets()
	if err != nil {
		return // it has been noted
	}
	_, own := SplitSecrets(text)
	for _, name := range []string{S3KeyID, S3Secret} {
		if own[name] == "" {
			r.add("database.backup.s3", "the secrets file (app.secrets) has no line %s=…", name)
		}
	}
}
