package site

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// syntaxLine finds the line in a message of the yaml parser.
var syntaxLine = regexp.MustCompile(`^yaml: line (\d+): `)

// document parses data, which must hold one YAML document, and returns its root, or nil after noting why not.
func (r *report) document(data []byte) *yaml.Node {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc, more yaml.Node
	err := dec.Decode(&doc)
	if errors.Is(err, io.EOF) {
		r.at(1, "", "the file is empty; `trivet init` prints an example")
		return nil
	}
	if err != nil {
		r.syntax(err)
		return nil
	}
	switch err := dec.Decode(&more); {
	case err == nil:
		r.at(max(more.Line, 1), "", "a second document begins here; one file declares one site")
	case !errors.Is(err, io.EOF):
		r.syntax(err)
	}
	return doc.Content[0]
}

func (r *report) syntax(err error) {
	text, line := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := syntaxLine.FindStringSubmatch(err.Error()); m != nil {
		line, _ = strconv.Atoi(m[1])
		text = err.Error()[len(m[0]):]
	}
	r.at(line, "", "this is not YAML: %s", text)
}

// decode reads n into v, which is of one of the types that Site is made of.
func (r *report) decode(key string, n *yaml.Node, v reflect.Value) {
	if _, ok := r.lines[key]; !ok {
		r.lines[key] = n.Line
	}
	if n.Kind == yaml.AliasNode {
		r.refuse(key, "YAML aliases (*%s) are not read here; write the value out", n.Value)
		return
	}
	if u, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		r.text(key, n, u)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		r.structure(key, n, v)
	case reflect.Slice:
		r.list(key, n, v)
	case reflect.Map:
		r.table(key, n, v)
	default:
		r.scalar(key, n, v)
	}
}

// structure reads a mapping whose keys are the fields' names.
func (r *report) structure(key string, n *yaml.Node, v reflect.Value) {
	if isNull(n) && key != "" {
		return
	}
	fields := fieldNames(v.Type())
	r.pairs(key, n, func(name string, k, value *yaml.Node) {
		i, ok := fields[name]
		if !ok {
			r.unknown(key, name, k.Line, fields)
			return
		}
		r.decode(join(key, name), value, v.Field(i))
	})
}

// pairs calls f for each pair of a mapping, and notes what is no mapping and what stands in it twice.
func (r *report) pairs(key string, n *yaml.Node, f func(name string, k, value *yaml.Node)) {
	if n.Kind != yaml.MappingNode {
		r.refuse(key, "%s; keys with values belong here", describe(n))
		return
	}
	first := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, value := n.Content[i], n.Content[i+1]
		if k.Kind != yaml.ScalarNode {
			r.at(k.Line, key, "a key must be a plain word")
			continue
		}
		if line, twice := first[k.Value]; twice {
			r.at(k.Line, join(key, k.Value), "stands here a second time; the first is on line %d", line)
			continue
		}
		first[k.Value] = k.Line
		r.lines[join(key, k.Value)] = k.Line
		f(k.Value, k, value)
	}
}

// unknown notes a key that no field has, and takes the field that was meant out of the further checks.
func (r *report) unknown(key, name string, line int, fields map[string]int) {
	best := suggest(name, fields)
	if best == "" {
		names := slices.Sorted(maps.Keys(fields))
		r.at(line, join(key, name), "is not a known key; known here are %s", strings.Join(names, ", "))
		return
	}
	r.unread[join(key, best)] = true
	r.at(line, join(key, name), "is not a known key; did you mean %s?", best)
}

func (r *report) list(key string, n *yaml.Node, v reflect.Value) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.refuse(key, "%s; a list belongs here", describe(n))
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		r.decode(fmt.Sprintf("%s[%d]", key, i), item, v.Index(i))
	}
	if len(n.Content) == 0 {
		v.SetZero()
	}
}

// table reads a mapping of names to strings.
func (r *report) table(key string, n *yaml.Node, v reflect.Value) {
	if isNull(n) {
		return
	}
	m := reflect.MakeMap(v.Type())
	r.pairs(key, n, func(name string, k, value *yaml.Node) {
		item := reflect.New(v.Type().Elem()).Elem()
		r.decode(join(key, name), value, item)
		m.SetMapIndex(reflect.ValueOf(name), item)
	})
	if m.Len() > 0 {
		v.Set(m)
	}
}

func (r *report) text(key string, n *yaml.Node, u encoding.TextUnmarshaler) {
	if n.Kind != yaml.ScalarNode || isNull(n) {
		r.refuse(key, "%s; a value belongs here", describe(n))
		return
	}
	if err := u.UnmarshalText([]byte(n.Value)); err != nil {
		r.refuse(key, "%v", err)
	}
}

func (r *report) scalar(key string, n *yaml.Node, v reflect.Value) {
	tag := n.ShortTag()
	switch {
	case n.Kind != yaml.ScalarNode || isNull(n):
		r.refuse(key, "%s; a value belongs here", describe(n))
	case v.Kind() == reflect.String && tag != "!!str":
		r.refuse(key, "%s; text belongs here, so put it in quotes: %q", describe(n), n.Value)
	case v.Kind() == reflect.Bool && tag != "!!bool":
		r.refuse(key, "%s; true or false belongs here", describe(n))
	case v.CanInt() && tag != "!!int":
		r.refuse(key, "%s; a whole number belongs here", describe(n))
	case v.Kind() == reflect.Float64 && tag != "!!int" && tag != "!!float":
		r.refuse(key, "%s; a number belongs here", describe(n))
	default:
		if err := n.Decode(v.Addr().Interface()); err != nil {
			r.refuse(key, "%q is not a number that fits here", n.Value)
		}
	}
}

// describe says what n is, for a message that goes on with what belongs there.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "this is a group of keys"
	case n.Kind == yaml.SequenceNode:
		return "this is a list"
	case isNull(n):
		return "there is no value"
	case n.ShortTag() == "!!str":
		return fmt.Sprintf("%q is text", n.Value)
	case n.ShortTag() == "!!bool":
		return n.Value + " is true or false"
	case n.ShortTag() == "!!int" || n.ShortTag() == "!!float":
		return n.Value + " is a number"
	}
	return fmt.Sprintf("%q is of type %s", n.Value, n.ShortTag())
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// fieldNames maps the yaml name of each field of t to its index.
func fieldNames(t reflect.Type) map[string]int {
	m := make(map[string]int, t.NumField())
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("yaml"), ","); name != "-" {
			m[name] = i
		}
	}
	return m
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}
