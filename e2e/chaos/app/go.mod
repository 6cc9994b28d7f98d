module chaos

go 1.26
