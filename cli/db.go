package cli

// dbCommand is the family of what is about the database alone.
var dbCommand = command{
	name: "db", summary: "see, move, save and restore the database",
	example: "trivet db status",
	family:  dbCommands,
}

// dbCommands in the order in which help lists them; each has a file of its own.
func dbCommands() []command {
	return []command{
		dbStatusCommand, dbQueriesCommand, dbForceCommand, dbShellCommand, dbSwitchCommand, dbRestartCommand, dbRotateCommand,
		dbBackupCommand, dbBackupsCommand, dbRestoreCommand, dbDrillCommand,
	}
}
