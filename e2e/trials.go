package e2e

import "time"

// What is done to a server.
var (
	powerOff, powerOn = labCommand("kill"), labCommand("start")
	unplug, plugIn    = labCommand("cut"), labCommand("heal")
	freeze, thaw      = labCommand("stop"), labCommand("start")
	killDatabase      = killProcess(mariadbd)
)

// oneWay loses packets of one way.
func oneWay(way, percent string) deed { return labCommand("cut", "--one-way", way, "--loss", percent) }

// Trials are what the databases have to survive, in the order in which it is tried.
var Trials = []Trial{
	{Name: "mariadbd of the writer killed", Victim: Writer, Break: killDatabase},
	{Name: "mariadbd of another server killed", Victim: Other, Break: killDatabase},
	{Name: "power of the writer off", Victim: Writer, Break: powerOff, Mend: powerOn, Apart: true},
	{Name: "power of another server off", Victim: Other, Break: powerOff, Mend: powerOn, Apart: true, Long: true},
	{Name: "power of s1 off", Victim: "s1", Break: powerOff, Mend: powerOn, Apart: true, Long: true},
	{Name: "power of s2 off", Victim: "s2", Break: powerOff, Mend: powerOn, Apart: true, Long: true},
	{Name: "power of s3 off", Victim: "s3", Break: powerOff, Mend: powerOn, Apart: true, Long: true},
	{Name: "writer unplugged", Victim: Writer, Break: unplug, Mend: plugIn, Apart: true},
	{Name: "another server unplugged", Victim: Other, Break: unplug, Mend: plugIn, Apart: true, Long: true},
	{Name: "writer deaf", Victim: Writer, Break: oneWay("in", "100"), Mend: plugIn, Apart: true},
	{Name: "writer mute", Victim: Writer, Break: oneWay("out", "100"), Mend: plugIn, Apart: true, Long: true},
	{Name: "another server deaf", Victim: Other, Break: oneWay("in", "100"), Mend: plugIn, Apart: true, Long: true},
	{Name: "another server mute", Victim: Other, Break: oneWay("out", "100"), Mend: plugIn, Apart: true, Long: true},
	{Name: "writer hears 90 of 100 packets", Victim: Writer, Break: oneWay("in", "10"), Mend: plugIn, Lasts: 5 * time.Second, Apart: true, Long: true},
	{Name: "another server hears 90 of 100 packets", Victim: Other, Break: oneWay("in", "10"), Mend: plugIn, Lasts: 5 * time.Second, Apart: true, Long: true},
	{Name: "another server hears 60 of 100 packets", Victim: Other, Break: oneWay("in", "40"), Mend: plugIn, Lasts: 5 * time.Second, Apart: true, Long: true},
	{Name: "writer frozen", Victim: Writer, Break: freeze, Mend: thaw, Apart: true},
	{Name: "another server frozen", Victim: Other, Break: freeze, Mend: thaw, Apart: true, Long: true},
	{Name: "router of the writer killed", Victim: Writer, Break: killProcess(router)},
	{Name: "router of another server killed", Victim: Other, Break: killProcess(router), Apart: true, Long: true},
	{Name: "node and etcd of the writer killed", Victim: Writer, Break: killProcess(nodeWord)},
	{Name: "node, etcd and mariadbd of the writer killed", Victim: Writer, Break: killProcess(nodeWord, mariadbd)},
	{Name: "mariadbd of the writer killed, all routers too", Victim: Writer, Break: inTurn(killDatabase, everywhere(killProcess(router))), Long: true},
	{Name: "power of the writer off, node and etcd of another killed", Victim: Writer, Break: inTurn(powerOff, onOthers(killProcess(nodeWord))), Mend: powerOn, Apart: true, Long: true},

	{Name: "all three mariadbd killed", Victim: All, Break: everywhere(killDatabase)},
	{Name: "all three mariadbd ended by SIGTERM", Victim: All, Break: everywhere(term(mariadbd)), Long: true},
	{Name: "power of all three off", Victim: All, Break: everywhere(powerOff), Mend: everywhere(powerOn), Dark: true},
	{Name: "all three stopped cleanly", Victim: All, Break: everywhere(shutdown), Mend: everywhere(powerOn), Dark: true, Long: true},
	{Name: "mariadbd of two killed, then the third", Victim: Writer, Break: inTurn(onOthers(killDatabase), wait(time.Second), killDatabase), Long: true},
	{Name: "power of two off, then the third", Victim: All, Break: twoThenThird, Mend: everywhere(powerOn), Dark: true, Long: true},
	{Name: "power of all three off, again during recovery", Victim: All, Break: offAgain, Mend: everywhere(powerOn), Dark: true, Long: true},

	{Name: "disk of another server wiped", Victim: Other, Break: inTurn(powerOff, wipe), Mend: powerOn, Apart: true},
	{Name: "disk of the writer wiped", Victim: Writer, Break: inTurn(powerOff, wipe), Mend: powerOn, Apart: true, Long: true},
	{Name: "disk of another server from an old copy", Victim: Other, Before: copyDisk, Break: inTurn(powerOff, restoreDisk), Mend: powerOn, Apart: true, Long: true},
	{Name: "power of all three off, disk of the writer from an old copy", Victim: Writer, Before: copyDisk, Break: inTurn(everywhere(powerOff), restoreDisk), Mend: everywhere(powerOn), Dark: true, Long: true},
	{Name: "power of all three off, disk of the writer wiped", Victim: Writer, Break: inTurn(everywhere(powerOff), wipe), Mend: everywhere(powerOn), Dark: true, Long: true},
	{Name: "disk of another server full", Victim: Other, Before: smallDisk, Break: fillDisk, Mend: emptyDisk, After: bigDisk, Long: true},
	{Name: "disk of the writer full", Victim: "s1", Before: inTurn(smallDisk, leads), Break: fillDisk, Mend: emptyDisk, After: bigDisk, Long: true},
	{Name: "clock of the writer's mariadbd 1 h ahead", Victim: "s1", Before: inTurn(clockOwn, leads), Break: inTurn(setClock("+3600"), showsClock(time.Hour)), Mend: setClock("+0"), After: clockBack, Long: true},
	{Name: "clock of the writer's mariadbd 1 h behind", Victim: "s1", Before: inTurn(clockOwn, leads), Break: inTurn(setClock("-3600"), showsClock(-time.Hour)), Mend: setClock("+0"), After: clockBack, Long: true},
	{Name: "mariadbd of another server killed, its clock 1 h behind", Victim: Other, Before: clockOwn, Break: inTurn(setClock("-3600"), showsClock(-time.Hour), killDatabase), After: clockBack, Long: true},
}

// Crash is all three servers' power off at once, for as often as one likes.
var Crash = Trial{Name: "power of all three off", Victim: All, Break: everywhere(powerOff), Mend: everywhere(powerOn), Dark: true, Lasts: time.Millisecond}
