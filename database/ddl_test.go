package database

import "testing"

func TestChangedTable(t *testing.T) {
	for statement, want := range map[string]string{
		"ALTER TABLE t ADD c INT":                                 "t",
		"alter  table\n shop.`order` add index (x)":               "shop.order",
		"ALTER ONLINE TABLE IF EXISTS `a``b`.`c.d` ENGINE=InnoDB": "a`b.c.d",
		"/* who */ ALTER TABLE t DROP c":                          "t",
		"CREATE UNIQUE INDEX i ON shop.t (a)":                     "shop.t",
		"CREATE INDEX IF NOT EXISTS i USING BTREE ON t (a)":       "t",
		"DROP INDEX i ON t":                                       "t",
		"OPTIMIZE TABLE t":                                        "t",
		"ALTER TABLE größe ADD x INT":                             "größe",
		"CREATE TABLE t (a INT)":                                  "",
		"ALTER USER x IDENTIFIED BY 'y'":                          "",
		"SELECT 'ALTER TABLE t ADD c INT'":                        "",
		"DROP TABLE t":                                            "",
	} {
		schema, table, ok := changedTable(statement)
		got := table
		if schema != "" {
			got = schema + "." + table
		}
		if got != want || ok != (want != "") {
			t.Errorf("%s: got %q %t, want %q", statement, got, ok, want)
		}
	}
}
