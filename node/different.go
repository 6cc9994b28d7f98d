package node

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// different says in lines which values below key differ, as in
// "balancer.retries: 2 → 1", by the keys of the site file.
func different(key string, was, now any) []string {
	before, errBefore := tree(was)
	after, errAfter := tree(now)
	if errBefore != nil || errAfter != nil {
		return []string{key + ": changed"}
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

func walk(key string, was, now any) []string {
	before, ok := was.(map[string]any)
	after, both := now.(map[string]any)
	if !ok || !both {
		x, y := word(was), word(now)
		if x == y {
			return nil
		}
		return []string{fmt.Sprintf("%s: %s → %s", key, x, y)}
	}
	keys := map[string]bool{}
	for _, m := range []map[string]any{before, after} {
		for k := range m {
			keys[k] = true
		}
	}
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		lines = append(lines, walk(key+"."+k, before[k], after[k])...)
	}
	return lines
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
