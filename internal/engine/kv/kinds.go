package kv

import (
	"github.com/cofferhq/coffer/internal/engine"
	"github.com/cofferhq/coffer/internal/policy"
	"github.com/cofferhq/coffer/internal/route"
)

// V1 is the engine with one value per path.
var V1 = engine.Kind[Mount, *Store]{
	Name: "kv", Version: "1", Doc: "Secrets without versions, one JSON object per path.",
	Class: engine.Secret, Open: open, Run: run, Routes: single,
}

// V2 is the engine with versions and labels. It opens mounts of V1 as they are.
var V2 = engine.Kind[Mount, *Store]{
	Name: "kv", Version: "2", Doc: "Versioned secrets with labels, validation, inventory and search.",
	Class: engine.Secret, Open: open, Run: run, Routes: versioned, Upgradable: []string{"1"},
}

var single = []route.Route[*Store]{
	route.New("GET", "{path...}", "Read a secret.", (*Store).ReadSingle,
		route.Shows("app/db", "", `{"user":"app","password":"p4"}`)),
	route.New("LIST", "{path...}", "List the names in a folder.", (*Store).List,
		route.Shows("app/", "", `{"keys":["db"]}`)),
	route.New("POST", "{path...}", "Write a secret; it replaces the one there is.", (*Store).WriteSingle,
		route.ExistsBy((*Store).SingleExists),
		route.Shows("app/db", `{"user":"app","password":"p5"}`, "")),
	route.New("DELETE", "{path...}", "Delete a secret.", (*Store).DeleteMetadata,
		route.Shows("app/db", "", "")),
}

// plain is the spelling in which people write paths: without the verb.
const plain = "{path...}"

var versioned = []route.Route[*Store]{
	route.New("GET", "config", "Read the mount's settings.", (*Store).ReadConfig,
		route.Shows("config", "", `{"max_versions":0,"cas_required":false,"delete_version_after":"0s","destroy_deleted_after":"0s"}`)),
	route.New("POST", "config", "Change the mount's settings.", (*Store).WriteConfig,
		route.Shows("config", `{"max_versions":20,"delete_version_after":"2160h"}`, "")),

	route.New("GET", "data/{path...}", "Read a version of a secret, the active one unless another is named.", (*Store).Read,
		route.Spelled(plain, policy.Read),
		route.Shows("data/app/db?label=previous", "", `{"data":{"user":"app","password":"p1"},"metadata":{"version":1,"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"custom_metadata":{"team":"payments"},"labels":["previous"]}}`)),
	route.New("POST", "data/{path...}", "Add a version and make it active, or stage it under a label.", (*Store).Write,
		route.ExistsBy((*Store).Exists), route.Spelled(plain, 0),
		route.Shows("data/app/db", `{"data":{"user":"app","password":"p4"},"options":{"stage":"pending","cas":3}}`, `{"version":4,"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"custom_metadata":{"team":"payments"},"labels":["pending"]}`)),
	route.New("PATCH", "data/{path...}", "Add a version that is the active one with a merge patch applied.", (*Store).Patch,
		route.Spelled(plain, policy.Patch),
		route.Shows("data/app/db", `{"data":{"password":"p4","port":5432}}`, `{"version":4,"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"custom_metadata":{"team":"payments"},"labels":["active"]}`)),
	route.New("DELETE", "data/{path...}", "Delete the active version; it can be undeleted.", (*Store).Delete,
		route.Spelled(plain, policy.Delete),
		route.Shows("data/app/db", "", "")),

	route.New("POST", "delete/{path...}", "Delete versions; they can be undeleted.", (*Store).DeleteVersions,
		route.Spelled(plain, policy.Delete),
		route.Shows("delete/app/db", `{"versions":[1,2]}`, "")),
	route.New("POST", "undelete/{path...}", "Make deleted versions readable again.", (*Store).Undelete,
		route.Spelled(plain, policy.Update),
		route.Shows("undelete/app/db", `{"versions":[1]}`, "")),
	route.New("POST", "destroy/{path...}", "Destroy versions' data for good.", (*Store).Destroy,
		route.Spelled(plain, policy.Delete),
		route.Shows("destroy/app/db", `{"versions":[1]}`, "")),

	route.New("GET", "metadata/{path...}", "Read what is known of a secret.", (*Store).ReadMetadata,
		route.Spelled(plain, policy.Read),
		route.Shows("metadata/app/db", "", metadataExample)),
	route.New("LIST", "metadata/{path...}", "List the names in a folder.", (*Store).List,
		route.Spelled(plain, policy.List),
		route.Shows("metadata/app/?limit=10", "", `{"keys":["db"]}`)),
	route.New("POST", "metadata/{path...}", "Set what is kept about a secret.", (*Store).WriteMetadata,
		route.ExistsBy((*Store).MetadataExists), route.Spelled(plain, policy.Update),
		route.Shows("metadata/app/db", `{"owner":"payments","tags":{"env":"prod"},"max_versions":5,"validators":{"required_keys":["password"],"regex":{"user":"^[a-z]+$"}}}`, "")),
	route.New("PATCH", "metadata/{path...}", "Change what is kept about a secret.", (*Store).PatchMetadata,
		route.Spelled(plain, policy.Update),
		route.Shows("metadata/app/db", `{"custom_metadata":{"team":null,"tier":"1"},"expires_at":"2031-01-01T00:00:00Z"}`, "")),
	route.New("DELETE", "metadata/{path...}", "Delete a secret with all its versions for good.", (*Store).DeleteMetadata,
		route.Spelled(plain, policy.Delete),
		route.Shows("metadata/app/db", "", "")),

	route.New("GET", "subkeys/{path...}", "Read the keys of a secret without its values.", (*Store).Subkeys,
		route.Spelled(plain, policy.Read),
		route.Shows("subkeys/app/db?depth=1", "", `{"subkeys":{"user":null,"password":null},"metadata":{"version":2,"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"custom_metadata":{"team":"payments"},"labels":["active"]}}`)),

	route.New("POST", "promote/{path...}", "Make the pending version active, or the one that is named.", (*Store).Promote,
		route.Spelled(plain, policy.Update),
		route.Shows("promote/app/db", `{"cas":2}`, `{"labels":{"active":3,"previous":2},"deprecated":[]}`)),
	route.New("POST", "rollback/{path...}", "Make the previous version active, or the one that is named.", (*Store).Rollback,
		route.Spelled(plain, policy.Update),
		route.Shows("rollback/app/db", `{}`, `{"labels":{"active":1,"pending":3,"previous":2},"deprecated":[]}`)),
	route.New("GET", "labels/{path...}", "Read where a secret's labels point.", (*Store).ReadLabels,
		route.Spelled(plain, policy.Read),
		route.Shows("labels/app/db", "", `{"labels":{"active":2,"pending":3,"previous":1},"deprecated":[]}`)),
	route.New("POST", "labels/{path...}", "Point a label at a version, or mark one deprecated.", (*Store).MoveLabel,
		route.Spelled(plain, policy.Update),
		route.Shows("labels/app/db", `{"label":"canary","version":3,"cas":0}`, `{"labels":{"active":2,"canary":3,"pending":3,"previous":1},"deprecated":[]}`)),
	route.New("DELETE", "labels/{path...}", "Remove a label, or the mark deprecated.", (*Store).RemoveLabel,
		route.Spelled(plain, policy.Update),
		route.Shows("labels/app/db?label=pending", "", `{"labels":{"active":2,"previous":1},"deprecated":[]}`)),

	route.New("GET", "search/{path...}", "Search a folder and everything below it for secrets that the caller may see.", (*Store).Search,
		route.Needs(policy.List), route.Spelled(plain, policy.List),
		route.Shows("search/?q=db&tags=env=prod", "", `{"keys":["app/db"],"key_info":{"app/db":{"owner":"payments","kind":"","tags":{"env":"prod"},"current_version":2,"updated_time":"2030-01-31T12:00:00Z"}},"cursor":""}`)),
}

const metadataExample = `{"versions":{"1":{"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"deprecated":false},` +
	`"2":{"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"deprecated":false},` +
	`"3":{"created_time":"2030-01-31T12:00:00Z","deletion_time":"","destroyed":false,"deprecated":false}},` +
	`"current_version":2,"newest_version":3,"oldest_version":0,"created_time":"2030-01-31T12:00:00Z","updated_time":"2030-01-31T12:00:00Z",` +
	`"max_versions":0,"cas_required":false,"delete_version_after":"0s","custom_metadata":{"team":"payments"},` +
	`"labels":{"active":2,"pending":3,"previous":1},"destroy_deleted_after":"0s","owner":"payments","description":"","kind":"",` +
	`"tags":{"env":"prod"},"expires_at":"","expiry":"warn","created_by":"root","updated_by":"root","last_read_time":"","last_read_by":"","deprecated_reads":0}`
