package servers

import (
	"context"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/go-logr/logr/funcr"
	"github.com/google/trillian"
	"github.com/google/trillian/extension"
	"github.com/google/trillian/log"
	"github.com/google/trillian/monitoring"
	"github.com/google/trillian/quota"
	"github.com/google/trillian/server"
	"github.com/google/trillian/server/admin"
	"github.com/google/trillian/server/interceptor"
	"github.com/google/trillian/storage/memory"
	"github.com/google/trillian/util/clock"
	"github.com/google/trillian/util/election"
	"github.com/google/trillian/util/election2"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
	"k8s.io/klog/v2"
)

// sequencing is how often new leaves are merged into the trees. An upload waits
// for it.
const sequencing = 50 * time.Millisecond

// trees is Trillian's log server, its signer and its admin server in one, over
// its in-memory storage.
type trees struct {
	port  string
	admin *admin.Server
	log   *server.TrillianLogRPCServer
}

// Trillian logs through a logger of the whole process. It is kept, and shown when
// a test has failed; its warning at every idle round is not.
var (
	trillianLog  tail
	quietenTrees = sync.OnceFunc(func() {
		klog.SetLogger(funcr.New(func(prefix, args string) {
			if !strings.Contains(args, "store 0 subtrees") {
				trillianLog.Write([]byte(prefix + args + "\n"))
			}
		}, funcr.Options{}))
	})
)

func startTrillian(t testing.TB) *trees {
	t.Helper()
	quietenTrees()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("last output of Trillian:\n%s", trillianLog.String())
		}
	})
	storage := memory.NewTreeStorage()
	registry := extension.Registry{
		AdminStorage:    memory.NewAdminStorage(storage),
		LogStorage:      alone{memory.NewLogStorage(storage, monitoring.InertMetricFactory{}), new(sync.Mutex)},
		QuotaManager:    quota.Noop(),
		ElectionFactory: election2.NoopFactory{},
		MetricFactory:   monitoring.InertMetricFactory{},
	}
	ts := &trees{admin: admin.New(registry, nil), log: server.NewTrillianLogRPCServer(registry, clock.System)}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listening for Trillian: %v", err)
	}
	_, ts.port, err = net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatalf("listening for Trillian: %v", err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(interceptor.ErrorWrapper))
	trillian.RegisterTrillianAdminServer(s, ts.admin)
	trillian.RegisterTrillianLogServer(s, ts.log)

	ctx, cancel := context.WithCancel(context.Background())
	signer := log.NewOperationManager(log.OperationInfo{
		Registry: registry, BatchSize: 1000, NumWorkers: 2, RunInterval: sequencing, TimeSource: clock.System,
		ElectionConfig: election.RunnerConfig{TimeSource: clock.System},
	}, log.NewSequencerManager(registry, 0))
	ended := make(chan struct{}, 2)
	go func() { signer.OperationLoop(ctx); ended <- struct{}{} }()
	go func() { s.Serve(l); ended <- struct{}{} }()
	t.Cleanup(func() {
		s.Stop()
		cancel()
		<-ended
		<-ended
	})
	return ts
}

// newTree makes an empty log and returns its id.
func (ts *trees) newTree(t testing.TB) int64 {
	t.Helper()
	tree, err := ts.admin.CreateTree(t.Context(), &trillian.CreateTreeRequest{Tree: &trillian.Tree{
		TreeState: trillian.TreeState_ACTIVE, TreeType: trillian.TreeType_LOG,
		MaxRootDuration: durationpb.New(time.Hour),
	}})
	if err != nil {
		t.Fatalf("making a Trillian tree: %v", err)
	}
	if _, err := ts.log.InitLog(t.Context(), &trillian.InitLogRequest{LogId: tree.TreeId}); err != nil {
		t.Fatalf("initialising Trillian tree %d: %v", tree.TreeId, err)
	}
	return tree.TreeId
}

// startRedis runs the store of Rekor's search index and returns its port.
func startRedis(t testing.TB) string {
	t.Helper()
	r, err := miniredis.Run()
	if err != nil {
		t.Fatalf("starting the search index: %v", err)
	}
	t.Cleanup(r.Close)
	return r.Port()
}

func treeName(id int64) string { return strconv.FormatInt(id, 10) }
