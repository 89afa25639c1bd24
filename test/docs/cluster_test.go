package docs

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/cofferhq/coffer/internal/storage/etcd/etcdtest"
	"github.com/cofferhq/coffer/internal/storage/postgres/postgrestest"
)

// nodes starts two nodes of the guide's configuration on this machine, in the
// place of those that run, and waits until they know each other. members prints
// them then.
const nodes = `
nodes() {
	for pid in "${servers[@]}"; do kill -INT $pid; wait $pid; done
	servers=()
	serve coffer server "$@"
	mkdir -p second
	sed -e 's/"node-1"/"node-2"/' -e 's,127.0.0.1:8200,127.0.0.1:8300,' -e "s,^data_dir = .*,data_dir = \"$PWD/second\"," /etc/coffer/node.hcl > node-2.hcl
	shift
	serve coffer server -config=node-2.hcl "$@"
}
members() {
	for _ in $(seq 300); do
		if [ "$(coffer operator members 2>/dev/null | grep -c ' true ')" = 2 ]; then break; fi
		sleep 0.1
	done
	coffer operator members
}
`

// clusterGuide puts a session where the guide to clusters begins: three members of
// etcd, a PostgreSQL and certificates, where the guide has them.
func (s *session) clusterGuide(t *testing.T, text string) string {
	t.Helper()
	etcd, db := etcdtest.Start(t, 3, etcdtest.WithTLS(false)), postgrestest.Start(t)
	here := func(name string) string { return filepath.Join(s.dir, "etc", "coffer", name) }
	for name, file := range map[string]string{
		"etcd-ca.pem": etcd.CAFile, "ca.pem": etcd.CAFile, "tls.pem": etcd.CertFile, "tls.key": etcd.KeyFile,
	} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(here(name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	admin, address := db.URL("postgres"), "127.0.0.1:"+strconv.Itoa(db.Port)
	pairs := []string{
		"postgres://postgres@db-1/postgres", "'" + admin + "'",
		"postgres://coffer@db-1,db-2/coffer?sslmode=verify-full&sslrootcert=/etc/coffer/db-ca.pem",
		"postgres://guide@" + address + "/guide?sslmode=disable",
		"CREATE ROLE coffer LOGIN", "CREATE ROLE guide LOGIN", // the server's superuser has the name
		"CREATE DATABASE coffer OWNER coffer", "CREATE DATABASE guide OWNER guide",
		"node-1.example.com:8200", "127.0.0.1:8200", "0.0.0.0:8200", "127.0.0.1:8200",
		"coffer server -config=", "nodes -config=",
		"\ncoffer operator members\n", "\nmembers\n",
	}
	for i, url := range etcd.Endpoints() {
		pairs = append(pairs, "https://etcd-"+strconv.Itoa(i+1)+":2379", url)
	}
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Errorf("the guide no longer says %q", pairs[i])
		}
	}
	s.prologue += nodes
	return strings.NewReplacer(pairs...).Replace(text)
}

// TestReadmeNodes starts two nodes with what the README has for several nodes, and
// a listener of the test's own.
func TestReadmeNodes(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(text), "\n## Several nodes\n")
	if !found {
		t.Fatal("the README has no section on several nodes")
	}
	block := blocks(section)[0]
	const url = "postgres://coffer@db.example.com/coffer?sslmode=verify-full"
	if block.kind != "hcl" || !strings.Contains(block.text, url) {
		t.Fatalf("the section begins with\n%s", block.text)
	}
	s, db := newSession(t), postgrestest.Start(t)
	s.prologue += nodes
	s.readDocument(t, "```sh\n"+`
cat > /etc/coffer/node.hcl <<'END'
`+strings.Replace(block.text, url, db.URL("postgres"), 1)+`
listener "tcp" {
  address     = "127.0.0.1:8200"
  tls_disable = true
}
END
nodes -config=/etc/coffer/node.hcl
export COFFER_ADDR=http://127.0.0.1:8200
coffer operator init -format=json > init.json
export COFFER_TOKEN=$(sed -n 's/.*"root_token": *"\([^"]*\)".*/\1/p' init.json)
members
`+"```\n```text\n"+`
…
node-1 … true …
node-2 … true …
`+"```\n")
}

// leasesGuide gives a session a database that lends accounts.
func (s *session) leasesGuide(t *testing.T, text string) string {
	t.Helper()
	db := postgrestest.Start(t)
	db.Exec(t, "postgres", "CREATE ROLE keeper SUPERUSER LOGIN PASSWORD 'first-password'", "CREATE DATABASE orders")
	port := strconv.Itoa(db.Port)
	return strings.NewReplacer("@db.example.com:5432", "@127.0.0.1:"+port, "host=db.example.com port=5432", "host=127.0.0.1 port="+port, "sslmode=verify-full", "sslmode=disable").Replace(text)
}
