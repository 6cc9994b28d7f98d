package app

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"trivet/internal/part"
	"trivet/site"
)

// searchPath is where an instance finds programs.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// plan is what makes the instances of one generation alike. It is a pure
// function of the State, and never changed.
type plan struct {
	hash    string // of all that follows
	release string
	dir     string
	run     []string
	env     []string // without what differs by instance
	listen  string
	count   int
}

// newPlan returns what s asks for; nil if the site has no app, or if waiting
// says what there is to wait for.
func newPlan(cfg Config, s part.State) (p *plan, waiting string, err error) {
	if s.Site == nil {
		return nil, "", errors.New("the state holds no site")
	}
	app := s.Site.App
	password, known := s.Secrets[part.SecretAppDatabase]
	switch {
	case app.Source == "":
		return nil, "", nil
	case len(app.Run) == 0:
		return nil, "", errors.New("app.run is empty")
	case s.Release.Hash == "":
		return nil, "the release is not on this server yet", nil
	case !known:
		return nil, "the database's password is not known yet", nil
	}
	secrets, err := site.ParseSecrets(s.Secrets[part.SecretEnvironment])
	if err != nil {
		return nil, "", err
	}
	p = &plan{
		release: s.Release.Hash, dir: filepath.Join(s.Release.Dir, "app"), run: app.Run,
		env: environment(cfg, s, secrets, password), listen: app.Listen, count: app.Instances,
	}
	p.hash, err = p.sum()
	return p, "", err
}

// environment is what all instances have in common; what trivet sets wins.
func environment(cfg Config, s part.State, secrets map[string]string, password string) []string {
	env := map[string]string{}
	maps.Copy(env, s.Site.App.Environment)
	maps.Copy(env, secrets)
	defaults := map[string]string{"PATH": searchPath, "HOME": "/nonexistent", "LANG": "C.UTF-8"}
	for k, v := range defaults {
		if _, ok := env[k]; !ok {
			env[k] = v
		}
	}
	database := func(port int) string {
		at := url.URL{
			Scheme: "mysql", User: url.UserPassword(s.Site.Database.User, password),
			Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), Path: "/" + s.Site.Database.Name,
		}
		return at.String()
	}
	env["DATABASE_URL"], env["DATABASE_SOCKET"] = database(part.PortSQL), filepath.Join(part.RouterDir, "mysql.sock")
	env["DATABASE_READ_URL"], env["DATABASE_READ_SOCKET"] = database(part.PortSQLRead), filepath.Join(part.RouterDir, "read.sock")
	env["TRIVET_SERVER"] = cfg.Server
	env["TRIVET_RELEASE"] = s.Release.Hash
	list := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		list = append(list, k+"="+env[k])
	}
	return list
}

// sum is a hash of the whole plan. It reaches the disk, in a record that only root can read.
func (p *plan) sum() (string, error) {
	data, err := json.Marshal([]any{p.release, p.dir, p.run, p.env, p.listen, p.count})
	if err != nil {
		return "", fmt.Errorf("hash settings: %w", err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// program returns the path of the program to run: in the release if it is named by a path, else on the search path.
func (p *plan) program(exists func(string) bool) (string, error) {
	name := p.run[0]
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(p.dir, name)
		}
		if !exists(name) {
			return "", fmt.Errorf("app.run: the release holds no program %s", p.run[0])
		}
		return name, nil
	}
	for _, dir := range filepath.SplitList(searchPath) {
		if path := filepath.Join(dir, name); exists(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("app.run: there is no program %s on this server", name)
}
