package wire

// What requests of HTTP/2 and 3 are refused for besides.
var (
	errScheme      = &Error{400, "the scheme is neither http nor https"}
	errPath        = &Error{400, "the path is not valid"}
	errCapital     = &Error{400, "a capital in a field name"}
	errValue       = &Error{400, "a byte in a field value that it may not have"}
	errHopField    = &Error{400, "a field of HTTP/1.1's connections"}
	errConnectForm = &Error{400, "a CONNECT with a path, or without a port"}
	errTooMuch     = &Error{431, "the head is too long"}
)

// Check checks a request of HTTP/2 or 3 whose Method, Scheme, Host (:authority),
// Path, Protocol and Fields have been set as they came, as Parse does for
// HTTP/1.1 (RFC 9113, 8.2 and 8.3; RFC 9114, 4.2 and 4.3). It sets the fields'
// Kinds, and Host (where :authority was missing), Length (-1 without
// Content-Length: a body ends with the stream), Expect and Trailers. The error is an *Error.
func (r *Request) Check(l *Limits) error {
	if err := r.check(l); err != nil {
		return err
	}
	return nil
}

func (r *Request) check(l *Limits) *Error {
	if l == nil {
		l = unlimited
	}
	if l.Target > 0 && len(r.Path) > l.Target {
		return errTargetSize
	}
	if err := r.checkPseudo(); err != nil {
		return err
	}
	if err := checkFields(r.Fields, l); err != nil {
		return err
	}
	var f framing
	if err := f.read(r.Fields, 1); err != nil {
		return err
	}
	if err := r.readFields(); err != nil {
		return err
	}
	if len(r.Host) == 0 {
		return errHostMissing
	}
	if r.Length = f.length; r.Length < 0 { // its end is the stream's
		return nil
	}
	return r.checkBody()
}

// checkPseudo checks what came in pseudo fields.
func (r *Request) checkPseudo() *Error {
	if !ValidMethod(r.Method) {
		return errMethod
	}
	if len(r.Host) == 0 {
		r.Host = nil
	}
	if r.Host != nil && !ValidHost(r.Host) {
		return errHost
	}
	if string(r.Method) == "CONNECT" && len(r.Protocol) == 0 {
		return r.checkConnect()
	}
	if !same(r.Scheme, "http") && !same(r.Scheme, "https") {
		return errScheme
	}
	if string(r.Path) == "*" && string(r.Method) == "OPTIONS" {
		return nil
	}
	if !ValidPath(r.Path) {
		return errPath
	}
	return nil
}

func (r *Request) checkConnect() *Error {
	if len(r.Path) > 0 || len(r.Scheme) > 0 {
		return errConnectForm
	}
	return r.parseAuthority(r.Host)
}

// checkFields checks names and values and finds the Kinds.
func checkFields(fields []Field, l *Limits) *Error {
	if l.Count > 0 && len(fields) > l.Count {
		return errFieldCount
	}
	size := 0
	for i := range fields {
		f := &fields[i]
		if err := checkField(f); err != nil {
			return err
		}
		n := len(f.Name) + len(f.Value) + len(": ")
		if l.Field > 0 && n > l.Field {
			return errFieldSize
		}
		if size += n + len("\r\n"); l.Head > 0 && size > l.Head {
			return errTooMuch
		}
	}
	return nil
}

func checkField(f *Field) *Error {
	if !ValidName(f.Name) {
		return errName
	}
	for _, c := range f.Name {
		if lower[c] != c {
			return errCapital
		}
	}
	if !ValidValue(f.Value) {
		return errValue
	}
	f.Kind = KindOf(f.Name)
	switch f.Kind {
	case Connection, KeepAlive, ProxyConnection, TransferEncoding, Upgrade:
		return errHopField
	case TE:
		if !same(f.Value, "trailers") {
			return errHopField
		}
	}
	return nil
}
