package e2e

import (
	"fmt"
	"time"

	"sigtrail/e2e/servers"
)

// publishFirst gives a project its first release.
func (s *soak) publishFirst(project string) {
	w := s.newWheel(project)
	s.logEverywhere(&w)
	s.pypi.publish(s.t, w)
}

// release publishes a file of the next project, signed by the expected repository
// and logged everywhere. With foreign, another repository signs it too: before or
// after the file appears, in one log or in several.
func (s *soak) release(foreign bool) {
	projects := soakProjects
	if !foreign {
		projects = append(projects[:len(projects):len(projects)], learner)
	}
	w := s.newWheel(projects[s.releases%len(projects)])
	way := len(s.foreign) % 5
	if foreign && way >= 3 { // before there is any trace of the file
		s.logForeign(w, way)
	}
	s.logEverywhere(&w)
	s.pypi.publish(s.t, w)
	if foreign && way < 3 {
		s.logForeign(w, way)
	}
	if foreign {
		s.foreign[w.project+" "+w.version] = time.Now()
	}
}

func (s *soak) newWheel(project string) wheel {
	s.releases++
	version := fmt.Sprintf("1.%d.0", s.releases)
	return wheel{project: project, version: version, name: fmt.Sprintf("%s-%s-py3-none-any.whl", project, version),
		content: []byte("the wheel of " + project + " " + version)}
}

// logEverywhere has the expected repository sign a wheel once for each log that
// takes entries, the v1 log last: its entry is the one that PyPI gets.
func (s *soak) logEverywhere(w *wheel) {
	for i := range 2 {
		s.logInTiles(*s.tiles(i), expected, *w)
	}
	w.signed = s.sign(s.t, expected, *w)
	w.entry = s.logInV1(w.signed, *w)
}

func (s *soak) logForeign(w wheel, way int) {
	switch way {
	case 0, 3:
		s.logInV1(s.sign(s.t, other, w), w)
	case 1, 4:
		s.logInTiles(*s.tiles(len(s.foreign)), other, w)
	case 2: // everywhere: still one finding
		s.logInV1(s.sign(s.t, other, w), w)
		for i := range 2 {
			s.logInTiles(*s.tiles(i), other, w)
		}
	}
}

func (s *soak) logInV1(signed servers.Signed, w wheel) servers.V1Entry {
	s.t.Helper()
	e := s.logV1(s.t, signed)
	origins := s.v1.Origins()
	s.truth = append(s.truth, logged{origins[len(origins)-1], e.Verification.Proof.LogIndex, w.name})
	s.acknowledged.v1.Add(1)
	return e
}

func (s *soak) logInTiles(log *servers.RekorV2, job servers.Job, w wheel) {
	s.t.Helper()
	index := s.logV2(s.t, log, s.sign(s.t, job, w))
	s.truth = append(s.truth, logged{log.Origin, index, w.name})
	s.acknowledged.v2.Add(1)
}
