package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"slices"
	"testing"

	"sigtrail/e2e/servers"
	store "sigtrail/index"
)

// What happens to a repository is told by the certificates that a real Fulcio issues
// before and after it.
func TestPublisherChanges(t *testing.T) {
	fulcio := servers.StartFulcio(t)
	publisher := func(j servers.Job) store.Publisher {
		t.Helper()
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		der, err := fulcio.Certify(t.Context(), j, key)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := store.ParseSigner(der)
		if err != nil {
			t.Fatal(err)
		}
		return signer.Publisher()
	}
	job := func(change func(*servers.Job)) servers.Job {
		j := servers.Job{Repository: "acme/tool", RepositoryID: "710000001", RepositoryOwnerID: "810000001", Environment: "pypi"}
		change(&j)
		return j
	}
	before := publisher(job(func(*servers.Job) {}))
	for _, c := range []struct {
		what   string
		change func(*servers.Job)
		want   []store.Change
	}{
		{"another run, tag and commit", func(j *servers.Job) {
			j.RunID, j.Ref, j.SHA = "9200000002", "refs/tags/v2.0.0", "00000c1e5a9b2d4f60718293a4b5c6d7e8f91234"
		}, nil},
		{"repository renamed", func(j *servers.Job) { j.Repository = "acme/tools" }, []store.Change{store.RepositoryRenamed}},
		{"owner renamed", func(j *servers.Job) { j.Repository = "acme-inc/tool" }, []store.Change{store.OwnerRenamed}},
		{"transferred", func(j *servers.Job) { j.Repository, j.RepositoryOwnerID = "other/tool", "810000009" }, []store.Change{store.Transferred}},
		{"deleted and made again", func(j *servers.Job) { j.RepositoryID = "710000009" }, []store.Change{store.RepositoryRecreated}},
		{"taken over by who got the account's name", func(j *servers.Job) { j.RepositoryID, j.RepositoryOwnerID = "710000009", "810000009" },
			[]store.Change{store.RepositoryRecreated, store.OwnerRecreated}},
		{"workflow moved to another file", func(j *servers.Job) { j.Workflow = "publish.yml" }, []store.Change{store.WorkflowChanged}},
		{"environment dropped", func(j *servers.Job) { j.Environment = "" }, []store.Change{store.EnvironmentDropped}},
		{"signed in a reusable workflow of somebody else", func(j *servers.Job) { j.Called = "shared/flows/.github/workflows/sign.yml@refs/heads/main" }, nil},
		{"another repository", func(j *servers.Job) {
			j.Repository, j.RepositoryID, j.RepositoryOwnerID = "mallory/tool", "710000009", "810000009"
		}, []store.Change{store.OtherRepository}},
	} {
		if got := store.Changes(before, publisher(job(c.change))); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
}
