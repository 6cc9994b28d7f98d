package console

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
)

// offer shows a button that signs in. The link alone does not, so that a
// program which looks at links does not use the token up.
func (c *Console) offer(w http.ResponseWriter, r *http.Request) {
	if _, ok := c.sessions.of(r); ok {
		http.Redirect(w, r, "/", http.StatusSeeOther)
		return
	}
	c.render(w, http.StatusOK, "signin.html", r.URL.Query().Get("token"))
}

// signIn redeems the one-time token for a session.
func (c *Console) signIn(w http.ResponseWriter, r *http.Request) {
	address, _, _ := net.SplitHostPort(r.RemoteAddr)
	if !c.attempts.allow(address) {
		c.render(w, http.StatusTooManyRequests, "refused.html", "Too many attempts. Wait a minute, then try again.")
		return
	}
	sum := sha256.Sum256([]byte(r.PostFormValue("token")))
	ok, err := c.cfg.Redeem(r.Context(), hex.EncodeToString(sum[:]))
	switch {
	case err != nil:
		c.cfg.Log.Warn("redeem sign-in token", "err", err)
		c.render(w, http.StatusServiceUnavailable, "refused.html", "The token could not be verified now. Try again in a moment.")
	case !ok:
		c.cfg.Log.Warn("refuse sign-in", "from", address)
		c.cfg.Note("Sign-in from " + address + " was refused")
		c.render(w, http.StatusForbidden, "refused.html", "This link was used already, or is too old.")
	case !c.sessions.begin(w):
		c.render(w, http.StatusServiceUnavailable, "refused.html", "This server has no session key yet. Try again in a moment.")
	default:
		c.cfg.Log.Info("signed in", "from", address)
		c.cfg.Note("Somebody signed in from " + address)
		http.Redirect(w, r, "/", http.StatusSeeOther)
	}
}

func (c *Console) signOut(w http.ResponseWriter, r *http.Request) {
	c.sessions.end(w)
	http.Redirect(w, r, "/", http.StatusSeeOther)
}
