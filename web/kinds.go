package web

import (
	"path"
	"strings"
)

// kinds are the types of common web files by their ending: own, because a
// server's table may lack them, and the same on all three.
var kinds = map[string]string{
	".html": "text/html; charset=utf-8", ".htm": "text/html; charset=utf-8",
	".css": "text/css; charset=utf-8", ".txt": "text/plain; charset=utf-8",
	".md": "text/markdown; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".js": "text/javascript; charset=utf-8", ".mjs": "text/javascript; charset=utf-8",
	".json": "application/json", ".map": "application/json",
	".jsonld": "application/ld+json", ".webmanifest": "application/manifest+json",
	".xml": "application/xml", ".rss": "application/rss+xml", ".atom": "application/atom+xml",
	".xhtml": "application/xhtml+xml", ".pdf": "application/pdf", ".wasm": "application/wasm",
	".ics": "text/calendar; charset=utf-8", ".vcf": "text/vcard; charset=utf-8", ".vtt": "text/vtt; charset=utf-8",

	".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
	".svg": "image/svg+xml", ".webp": "image/webp", ".avif": "image/avif", ".ico": "image/x-icon",
	".bmp": "image/bmp", ".apng": "image/apng", ".jxl": "image/jxl",

	".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf", ".eot": "application/vnd.ms-fontobject",

	".mp3": "audio/mpeg", ".ogg": "audio/ogg", ".opus": "audio/ogg", ".wav": "audio/wav", ".flac": "audio/flac",
	".m4a": "audio/mp4", ".mp4": "video/mp4", ".webm": "video/webm", ".ogv": "video/ogg", ".mov": "video/quicktime",

	".zip": "application/zip", ".gz": "application/gzip", ".br": "application/octet-stream",
	".zst": "application/zstd", ".tar": "application/x-tar", ".7z": "application/x-7z-compressed",
}

// kindOf returns the Content-Type of a file by its name.
func kindOf(name string) string {
	if k, ok := kinds[strings.ToLower(path.Ext(name))]; ok {
		return k
	}
	return "application/octet-stream"
}
