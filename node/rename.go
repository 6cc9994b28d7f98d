package node

import (
	"fmt"

	"trivet/site"
)

// RenameError is a declaration that gives another name to what the site's data
// hang on: such a change would not rename the data, but leave them behind.
type RenameError struct {
	Key      string // of the site file, such as database.name
	Was, Now string
}

func (e RenameError) Error() string {
	if e.Key == "name" {
		return fmt.Sprintf("this lab serves the site %q; the file declares %q", e.Was, e.Now)
	}
	return fmt.Sprintf("%s is %q and cannot become %q", e.Key, e.Was, e.Now)
}

// Renamed returns a RenameError for the first name of was that now changes, nil if there is none.
func Renamed(was, now *site.Site) error {
	names := []RenameError{
		{"name", was.Name, now.Name},
		{"database.name", was.Database.Name, now.Database.Name},
		{"database.user", was.Database.User, now.Database.User},
		{"servers", serverNames(was), serverNames(now)},
	}
	for _, n := range names {
		if n.Was != n.Now {
			return n
		}
	}
	return nil
}

func serverNames(s *site.Site) string {
	text := ""
	for i, srv := range s.Servers {
		if i > 0 {
			text += ", "
		}
		text += srv.Name
	}
	return text
}
