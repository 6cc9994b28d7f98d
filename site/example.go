package site

import _ "embed" // for Example

// Example is an annotated site file with every key, for `trivet init`.
//
//go:embed example.yaml
var Example []byte
