package main

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	requestLimit = 10 * time.Second // of a request as a whole; then it is answered 503
	retryLimit   = 8 * time.Second  // how long it is tried again
	attemptLimit = 3 * time.Second  // of one attempt
)

// duplicateKey is MariaDB's ER_DUP_ENTRY.
const duplicateKey = 1062

// passing are MariaDB's errors that are gone when the writer has changed, a
// transaction that was in the way has ended, or the tables have been made.
var passing = map[uint16]bool{
	1040: true, // too many connections
	1047: true, // the node is not part of the primary component (WSREP)
	1053: true, // the server is shutting down
	1146: true, // there is no such table: the migration has not run yet
	1205: true, // lock wait timeout
	1213: true, // deadlock, or another node's transaction came first
	1290: true, // the server is read-only: it is not the writer any more
	1317: true, // the statement was interrupted
	1927: true, // the connection was killed
}

// retry calls do until it succeeds, its error is one that will not pass, or
// the time is up. do must be such that repeating it does no harm.
func retry(ctx context.Context, do func(context.Context) error) error {
	until := time.Now().Add(retryLimit)
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		err := attempt(ctx, do)
		if err == nil || !passes(err) || ctx.Err() != nil || time.Now().Add(wait).After(until) {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return err
		}
	}
}

func attempt(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, attemptLimit)
	defer cancel()
	return do(ctx)
}

// passes reports whether err may be gone at the next attempt: the connection
// was refused or lost, or MariaDB says so.
func passes(err error) bool {
	if n := number(err); n != 0 {
		return passing[n]
	}
	var network net.Error
	return errors.As(err, &network) ||
		errors.Is(err, mysql.ErrInvalidConn) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.DeadlineExceeded)
}

// number is MariaDB's number of an error, 0 if it is none of MariaDB's.
func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}
