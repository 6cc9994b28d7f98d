package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// difference is one value that is not what it was, by its key in the site file.
type difference struct{ key, was, now string }

// String is as in "balancer.retries: 2 → 1".
func (d difference) String() string { return d.key + ": " + d.was + " → " + d.now }

// different says in lines which values below key differ.
func different(key string, was, now any) []string {
	var lines []string
	for _, d := range differences(key, was, now) {
		lines = append(lines, d.String())
	}
	return lines
}

// differences lists the values below key that differ.
func differences(key string, was, now any) []difference {
	before, errBefore := tree(was)
	after, errAfter := tree(now)
	if errBefore != nil || errAfter != nil {
		return []difference{{key, "something", "something else"}} // no value of the site file does this
	}
	return walk(key, before, after)
}

// tree is v as JSON has it: maps, slices and plain values.
func tree(v any) (any, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var t any
	return t, json.Unmarshal(data, &t)
}

func walk(key string, was, now any) []difference {
	before, ok := was.(map[string]any)
	after, both := now.(map[string]any)
	if !ok || !both {
		x, y := word(was), word(now)
		if x == y {
			return nil
		}
		return []difference{{key, x, y}}
	}
	keys := map[string]bool{}
	for _, m := range []map[string]any{before, after} {
		for k := range m {
			keys[k] = true
		}
	}
	var list []difference
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		list = append(list, walk(key+"."+k, before[k], after[k])...)
	}
	return list
}

// word writes a value in one line.
func word(v any) string {
	switch v := v.(type) {
	case nil:
		return "none"
	case string:
		if v != "" {
			return v
		}
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
