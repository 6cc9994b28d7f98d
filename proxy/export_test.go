package proxy

// HighTide is how many bytes the sweep has seen exchanges hold, for tests; 0: not much.
func (s *Server) HighTide() int64 { return s.tide.high.Load() }

// TellAll tells all HTTP/2 clients to end, as draining does, for tests.
func (s *Server) TellAll() { s.tellAll() }
