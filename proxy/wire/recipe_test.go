package wire_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"trivet/proxy/wire/obvious"
)

// A recipe makes a message of pieces: each of its bytes chooses one. Fuzzing
// recipes gets deeper than fuzzing bytes.
var (
	methods  = []string{"GET", "POST", "HEAD", "OPTIONS", "CONNECT", "TRACE", "get", "", "G T", "\r\nGET", strings.Repeat("M", 33)}
	targets  = []string{"/", "/a?b", "*", "a:1", "http://a/", "HTTPS://A:80?x", "http://a", "//a", "/%4", "/%4f", "/\\", "/?\\", "/#", "/\x80", "http://a@b/", "http://[::1]/", "", "[::1]:2", "/" + strings.Repeat("t", 60)}
	versions = []string{" HTTP/1.1", " HTTP/1.1", " HTTP/1.1", " HTTP/1.0", " HTTP/1.2", " HTTP/2.0", " HTTP/1.1 ", "", " http/1.1", " HTTP/1.x"}
	statuses = []string{"200 OK", "200", "204 ", "304 x", "101 Up", "100 ", "600 x", "99 x", "200  x\t", "200 \x01", "500 \xff"}
	hosts    = []string{"Host: a\r\n", "Host: a\r\n", "Host: a\r\n", "", "host:A:80\r\n", "Host: a:1\r\n", "Host: [::1]\r\n", "Host: [::1]:2\r\n", "Host: [1::2::3]\r\n", "Host: [::1.2.3.4]\r\n", "Host: \r\n", "Host: a.\r\n", "Host: a..b\r\n", "Host: a:99999\r\n", "Host: a:01\r\n", "Host: a@b\r\n"}
	lines    = []string{
		"Content-Length: 0\r\n", "Content-Length: 5\r\n", "content-length: 05 \r\n", "Content-Length: +5\r\n", "Content-Length: 5,5\r\n", "Content-Length: 9223372036854775807\r\n", "Content-Length: 9223372036854775808\r\n", "Content-Length:\r\n",
		"Transfer-Encoding: chunked\r\n", "Transfer-Encoding:\tCHUNKED\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding: chunked, chunked\r\n", "Transfer-Encoding: x\r\n", "Transfer-Encoding: ,chunked\r\n", "Transfer-Encoding: x\t,\tchunked\r\n",
		"Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: Upgrade\r\n", "Connection: x-a, TE\r\n", "Connection: content-length\r\n", "Connection: ,,\r\n", "Connection: a b\r\n", "Connection:" + strings.Repeat(",", 20) + "\r\n", "Connection: close, close\r\n", "Connection: close, keep-alive, upgrade\r\n",
		"Upgrade: websocket\r\n", "Upgrade: a/b, c\r\n", "Upgrade: a b\r\n", "Upgrade: h2c\r\n", "Upgrade: /\r\n", "Upgrade: a/\r\n", "Upgrade: ,a\r\n", "Upgrade:\r\n",
		"Expect: 100-continue\r\n", "Expect: 100-Continue\r\n", "Expect: x\r\n", "TE: trailers\r\n", "TE: a, Trailers ;q\r\n", "TE: a , trailers\r\n",
		"X-A: 1\r\n", "x-a:\r\n", "X_A: \xff\t.\r\n", "X-A : 1\r\n", " X: 1\r\n", "\tX: 1\r\n", ": 1\r\n", "X\r\n", "X: a\nb\r\n", "X: a\rb\r\n", "X: a\x00\r\n", "X: a\x00\n", "X: 12345678\x7f\r\n", "X: 1234567\t1234567\t\x01\r\n", "Close: 1\r\n", "keep-alive: 1\r\n",
		"X: " + strings.Repeat("y", 90) + "\r\n", "X: " + strings.Repeat("y", 85) + "\r\n", "X: " + strings.Repeat("y", 87) + "\r\n", "Host: a\r\n", "\r\n", "\n", "\r", "X: a\n", "",
	}
	chunkPieces = []string{
		"5\r\nhello\r\n", "1\r\nx\r\n", "0\r\n", "0\r\n\r\n", "00\r\n", "a", "F", "5", "0", "7fffffffffffffff", "8000000000000000", "00000000", ";", "=", "a", "b=c", "\"", "\"x;=\\\"\"", "\\", " ", "\t", "\r\n", "\r", "\n", "hello", "\x00", "\xff",
		"X: y\r\n", "Date: z\r\n", "Host: a\r\n", "x_y: z\r\n", ": z\r\n", "X : y\r\n", " f\r\n", ";" + strings.Repeat("e", 3000), "T: " + strings.Repeat("t", 6000) + "\r\n",
	}
)

// cook makes a message whose start line and first field are of the first pieces.
func cook(recipe []byte, start [][]string, rest []string) string {
	var b strings.Builder
	for i, c := range recipe {
		pieces := rest
		if i < len(start) {
			pieces = start[i]
		}
		b.WriteString(pieces[int(c)%len(pieces)])
	}
	return b.String()
}

func cookRequest(recipe []byte) string {
	return cook(recipe, [][]string{methods, {" "}, targets, versions, {"\r\n"}, hosts}, lines) + "\r\n"
}

func cookResponse(recipe []byte) string {
	return cook(recipe, [][]string{{"HTTP/1.1", "HTTP/1.1", "HTTP/1.0", "HTTP/1.2"}, {" "}, statuses, {"\r\n"}}, lines) + "\r\n"
}

func FuzzRequestRecipe(f *testing.F) {
	f.Add([]byte{1, 0, 1, 0, 0, 0, 8, 39})
	f.Fuzz(func(t *testing.T, recipe []byte) { checkRequestRecipe(t, recipe[:min(len(recipe), 20)]) })
}

func checkRequestRecipe(t *testing.T, recipe []byte) {
	t.Helper()
	s := []byte(cookRequest(recipe))
	end := checkHeadEnd(t, s)
	compareRequest(t, s[:end])
	compareRequest(t, s)
}

func FuzzResponseRecipe(f *testing.F) {
	f.Add([]byte{0, 0, 1, 0, 0, 8, 39}, byte(0))
	f.Fuzz(func(t *testing.T, recipe []byte, method byte) {
		checkResponseRecipe(t, recipe[:min(len(recipe), 20)], method)
	})
}

func checkResponseRecipe(t *testing.T, recipe []byte, method byte) {
	t.Helper()
	s := []byte(cookResponse(recipe))
	end := checkHeadEnd(t, s)
	for _, head := range [][]byte{s, s[:end]} {
		compareResponse(t, head, responseMethods[int(method)%len(responseMethods)])
	}
}

func FuzzChunksRecipe(f *testing.F) {
	f.Add([]byte{0, 1, 2, 27, 21}, byte(2))
	f.Fuzz(func(t *testing.T, recipe []byte, step byte) {
		checkChunksRecipe(t, recipe[:min(len(recipe), 20)], step)
	})
}

func checkChunksRecipe(t *testing.T, recipe []byte, step byte) {
	t.Helper()
	stream := []byte(cook(recipe, nil, chunkPieces))
	want, verdict := obvious.Chunks(stream)
	for _, n := range []int{max(len(stream), 1), 1, int(step)%9 + 2} {
		compareChunks(t, stream, n, want, verdict)
	}
}

// TestRecipes cooks what chance chooses, so that a plain test run covers much of what fuzzing would.
func TestRecipes(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	count := 8000
	if testing.Short() {
		count = 1000
	}
	for range count {
		recipe := make([]byte, chance.IntN(14))
		for i := range recipe {
			recipe[i] = byte(chance.Uint32())
		}
		sober := slices.Clone(recipe)
		for i := range min(len(sober), 6) {
			sober[i] %= 2 // mostly a good start line
		}
		step := byte(chance.Uint32())
		checkRequestRecipe(t, recipe)
		checkRequestRecipe(t, sober)
		checkResponseRecipe(t, recipe, step)
		checkChunksRecipe(t, recipe, step)
	}
}
