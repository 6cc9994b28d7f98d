package node

import (
	"path/filepath"
	"slices"

	"trivet/internal/part"
	"trivet/site"
)

// local is what this node knows by itself.
type local struct {
	server    string
	quorum    bool
	alone     bool   // there has been no quorum for longer than a lease lasts: nobody's word counts but its own
	release   string // newest release that is complete on this server
	instances []part.Instance
	live      live
}

// compose makes the State that all parts' states are cut from.
func compose(l local, a agreed) part.State {
	s := part.State{
		Revision:      a.Declared.Revision,
		Site:          a.Declared.Site,
		Server:        l.server,
		Quorum:        l.quorum,
		AddressHolder: a.Holder,
		Database:      a.effective(),
		Record:        a.Record,
		Instances:     l.instances,
		Backup:        a.Backup,
		Secrets:       declaredSecrets(a.Declared.Environment),
	}
	if !l.quorum {
		s.Database.Next = "" // nobody can agree on a switch now: nothing is held for it
	}
	for k, v := range a.Secrets {
		s.Secrets[k] = v
	}
	if a.Rotation.Next != "" {
		s.Secrets[part.SecretAppDatabaseNext] = a.Rotation.Next
	}
	if a.Rotation.Old != "" {
		s.Secrets[part.SecretAppDatabaseOld] = a.Rotation.Old
	}
	if len(a.Tickets) > 0 {
		s.Secrets[part.SecretTicketKeys] = ticketSecret(a.Tickets)
	}
	if l.release != "" {
		s.Release = part.Release{Hash: l.release, Dir: filepath.Join(part.ReleaseDir, l.release)}
	}
	for _, srv := range s.Site.Servers {
		said, alive := a.Live[srv.Name]
		if l.alone {
			said, alive = live{}, false // without quorum no lease ends, whatever became of its holder
		}
		if srv.Name == l.server {
			said, alive = l.live, true
		}
		m := part.Member{Name: srv.Name, Address: srv.Address, Alive: alive, Drained: slices.Contains(a.Drained, srv.Name)}
		m.Database, m.Revision, m.Problems, m.Holds = said.Database, said.Revision, said.Problems, said.Holds
		m.Accepts, m.Uses = said.Accepts, said.Uses
		s.Members = append(s.Members, m)
	}
	return s
}

// declaredSecrets parts what is in the site's secrets file: the app gets nothing of trivet's own.
func declaredSecrets(text string) map[string]string {
	app, own := site.SplitSecrets(text)
	secrets := map[string]string{part.SecretEnvironment: app}
	for name, variable := range map[string]string{part.SecretS3KeyID: site.S3KeyID, part.SecretS3Secret: site.S3Secret} {
		if v, ok := own[variable]; ok {
			secrets[name] = v
		}
	}
	return secrets
}

// keys is what the certificate part has issued.
type keys interface {
	Identity(partName string) part.KeyPair
	Bundle() []byte
	Site() []part.KeyPair
	Console() part.KeyPair
}

// cut reduces s to what the named part may know, so that a part is applied
// anew only when something of its own has changed, and a worker that was
// taken over gives away no more than its own.
func cut(name string, s part.State, k keys) part.State {
	secrets := s.Secrets
	s.Secrets = nil
	instances := s.Instances
	s.Instances = nil
	record, past := s.Record, s.Database
	s.Record = part.DatabaseRecord{}
	s.Database.Starts, s.Database.Force = nil, part.DatabaseForce{}
	backup := s.Backup
	s.Backup = part.BackupRole{}
	identity := name
	// Quorum comes and goes; only who acts on it or shows it is told.
	quorum := s.Quorum
	s.Quorum = false
	switch name {
	case part.Firewall, part.Certificate:
		s = withoutRoles(s)
	case part.Balancer:
		members := s.Members
		s = withoutRoles(s)
		s.Members = withDrained(s.Members, members)
		s.Secrets = pick(secrets, part.SecretSticky)
		if s.Site.Balancer.TLS != site.TLSPassthrough { // else it opens no visitor's TLS
			s.Certificates = k.Site()
			s.Secrets = pick(secrets, part.SecretTicketKeys, part.SecretSticky)
		}
	case part.Web:
		s = withoutRoles(s)
		s.Instances = instances
		if s.Site.Balancer.TLS == site.TLSPassthrough {
			s.Certificates = k.Site()
			s.Secrets = pick(secrets, part.SecretTicketKeys)
		}
	case part.App:
		s = withoutRoles(s)
		s.Secrets = pick(secrets, part.SecretEnvironment, part.SecretAppDatabase)
	case part.Router:
		s.Members = withSynced(bare(s.Members), s.Members)
		s.AddressHolder = ""
		s.Secrets = pick(secrets, part.SecretAppDatabase, part.SecretAppDatabaseOld, part.SecretAppDatabaseNext)
	case part.Database:
		s.Quorum = quorum
		s.Record, s.Database = record, past
		s.AddressHolder = ""
		s.Members = withoutProblems(s.Members)
		s.Secrets = pick(secrets, part.SecretAppDatabase, part.SecretAppDatabaseOld, part.SecretAppDatabaseNext, part.SecretReader)
	case part.Backup:
		identity = part.Database
		s.Quorum = quorum
		s.AddressHolder = ""
		s.Members = withoutProblems(s.Members)
		s.Backup = backup
		s.Secrets = pick(secrets, part.SecretBackup, part.SecretS3KeyID, part.SecretS3Secret)
	case part.Monitor:
		s.Quorum = quorum
		s.Backup = backup
		s.Certificates = []part.KeyPair{k.Console()}
		s.Secrets = pick(secrets, part.SecretConsoleKey)
	}
	if name != part.Firewall && name != part.App && name != part.Certificate {
		s.Identity, s.Bundle = k.Identity(identity), k.Bundle()
	}
	return s
}

func withoutRoles(s part.State) part.State {
	s.Members = bare(s.Members)
	s.Database = part.DatabaseRole{}
	s.AddressHolder = ""
	return s
}

// bare keeps of each member only who and where it is.
func bare(members []part.Member) []part.Member {
	var out []part.Member
	for _, m := range members {
		out = append(out, part.Member{Name: m.Name, Address: m.Address, Alive: m.Alive})
	}
	return out
}

// withSynced adds to members whether the database of each is synced, which is where reads may go.
func withSynced(members, all []part.Member) []part.Member {
	for i := range members {
		if all[i].Database.State == part.DatabaseSynced {
			members[i].Database.State = part.DatabaseSynced
		}
	}
	return members
}

func withoutProblems(members []part.Member) []part.Member {
	var out []part.Member
	for _, m := range members {
		m.Problems, m.Revision = nil, 0
		out = append(out, m)
	}
	return out
}

func pick(secrets map[string]string, names ...string) map[string]string {
	out := map[string]string{}
	for _, n := range names {
		if v, ok := secrets[n]; ok {
			out[n] = v
		}
	}
	return out
}
