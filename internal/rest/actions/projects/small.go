package projects

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// ruleTest is whether a version satisfies a channel's rule.
type ruleTest struct {
	octopus.ChannelRuleTest
	SatisfiesVersionTagRegex bool
}

// ruleQuery is what a rule is tested with: in the query, or in the body of a POST.
type ruleQuery struct {
	Version, VersionRange             string
	PreReleaseTag                     string
	PreReleaseTagPattern, FeedType    string // the later name of PreReleaseTag
	VersionTagRegex, FeedID, StepName string
}

func (a *api) smallRoutes() []rest.Route {
	text := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.Text, About: about} }
	test := reflect.TypeFor[ruleTest]()
	rule := []rest.Param{
		text("version", "the version"), text("versionRange", "a range that it must be in"), text("preReleaseTag", "a regular expression for its pre-release tag"),
		text("versionTagRegex", "a regular expression for the whole of it"), text("feedType", "where it comes from, which says how versions are ordered"),
	}
	routes := []rest.Route{
		{Method: http.MethodGet, Pattern: "/machinepolicies/template", Permission: policyView, Handler: a.template, Response: reflect.TypeFor[octopus.MachinePolicy](), Summary: "Reads what a new machine policy begins with."},
		{Method: http.MethodGet, Pattern: "/accounts/{id}/usages", Permission: accountView, Handler: a.usages("accounts", "Account"), Response: reflect.TypeFor[octopus.AccountUsages](), Summary: "Lists what uses an account, of what the caller may see."},
		{Method: http.MethodGet, Pattern: "/certificates/{id}/usages", Permission: string(octopus.PermCertificateView), Handler: a.usages("certificates", "Certificate"), Response: reflect.TypeFor[octopus.CertificateUsages](), Summary: "Lists what uses a certificate, of what the caller may see."},
		{Method: http.MethodGet, Pattern: "/feeds/stats", Permission: feedView, Handler: a.stats, Response: reflect.TypeFor[octopus.BuiltInFeedStats](), Summary: "Counts the packages of the built-in feed."},
	}
	for _, pattern := range []string{"/channels/rule-test", "/channels/rule-test/v1"} {
		routes = append(
			routes,
			rest.Route{Method: http.MethodGet, Pattern: pattern, Permission: processView, Handler: a.testRule, Query: rule, Response: test, Summary: "Tells whether a version satisfies a rule for channels."},
			rest.Route{Method: http.MethodPost, Reads: true, Pattern: pattern, Permission: processView, Handler: a.testRule, Body: reflect.TypeFor[ruleQuery](), Response: test, Summary: "Tells whether a version satisfies a rule for channels."},
		)
	}
	return routes
}

func (a *api) template(r *rest.Request) (any, error) {
	p := octopus.MachinePolicy{SpaceID: string(r.Space)}
	day := octopus.TimeSpan(24 * time.Hour)
	p.MachineHealthCheckPolicy.HealthCheckInterval = &day
	resources.CompleteMachinePolicy(&p)
	p.Links = octopus.Links{"Self": r.SpaceHref("/machinepolicies/template")}
	return p, nil
}

// testRule answers two hundred whatever is wrong with version or rule: clients
// try the rules of all channels, and read the errors.
func (a *api) testRule(r *rest.Request) (any, error) {
	var q ruleQuery
	if err := r.DecodeOptional(&q); err != nil {
		return nil, err
	}
	for name, to := range map[string]*string{
		"version": &q.Version, "versionRange": &q.VersionRange, "preReleaseTag": &q.PreReleaseTag, "preReleaseTagPattern": &q.PreReleaseTagPattern,
		"versionTagRegex": &q.VersionTagRegex, "feedType": &q.FeedType, "feedId": &q.FeedID,
	} {
		if v := r.Query(name); v != "" {
			*to = v
		}
	}
	if q.Version == "" {
		return nil, fault.InvalidField("version", "version is empty; give the version to test.")
	}
	if q.PreReleaseTag == "" {
		q.PreReleaseTag = q.PreReleaseTagPattern
	}
	scheme, err := a.schemeOf(r, &q)
	if err != nil {
		return nil, err
	}
	out := ruleTest{ChannelRuleTest: octopus.ChannelRuleTest{Errors: octopus.List[string]{}}}
	v, err := version.Parse(scheme, q.Version)
	if err != nil {
		out.Errors = octopus.List[string]{"Invalid Version Number"} // a script compares these words
		return out, nil
	}
	for _, one := range []struct {
		satisfied        *bool
		bounds, tag, all string
	}{
		{&out.SatisfiesVersionRange, q.VersionRange, "", ""},
		{&out.SatisfiesPreReleaseTag, "", q.PreReleaseTag, ""},
		{&out.SatisfiesVersionTagRegex, "", "", q.VersionTagRegex},
	} {
		rule, err := version.NewRule(scheme, one.bounds, one.tag, one.all)
		if err == nil {
			*one.satisfied, err = rule.Accepts(v)
		}
		if err != nil {
			out.Errors = append(out.Errors, fault.Messages(err)...)
		}
	}
	return out, nil
}

// schemeOf is how the versions of a feed are ordered.
func (a *api) schemeOf(r *rest.Request, q *ruleQuery) (version.Scheme, error) {
	if q.FeedType != "" || q.FeedID == "" {
		return version.SchemeOfFeed(q.FeedType), nil
	}
	var feed *octopus.Feed
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		doc, err := r.Find(r.Context(), tx, "feeds", q.FeedID)
		if err == nil {
			feed, err = docstore.Decode[octopus.Feed](doc)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	return version.SchemeOfFeed(string(feed.FeedType)), nil
}

func (a *api) stats(r *rest.Request) (any, error) {
	out := octopus.BuiltInFeedStats{Links: octopus.Links{"Self": r.SpaceHref("/feeds/stats"), "Feed": r.SpaceHref("/feeds/" + resources.BuiltinFeed(r.Space))}}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(r.Context(), `SELECT count(*) FROM package p WHERE p.space_id = ?`, string(r.Space)).Scan(&out.TotalPackages)
	})
	return out, err
}

// usages lists what uses an account or the like. Variables and steps hold its id as
// a plain text: the database finds the documents that have it in them, and what they
// say decides.
func (a *api) usages(kind, link string) rest.Handler {
	return func(r *rest.Request) (any, error) {
		var out octopus.AccountUsages
		err := a.db.Read(r.Context(), func(tx *db.Tx) error {
			ctx := r.Context()
			doc, err := r.Find(ctx, tx, kind, r.PathValue("id"))
			if err != nil {
				return err
			}
			u := &usage{api: a, r: r, tx: tx, id: doc.ID, out: &out}
			self := r.SpaceHref("/" + kind + "/" + doc.ID)
			out = octopus.AccountUsages{Links: octopus.Links{"Self": self + "/usages", link: self}}
			if err := u.targets(ctx); err != nil {
				return err
			}
			if err := u.variables(ctx); err != nil {
				return err
			}
			return u.processes(ctx)
		})
		return out, err
	}
}

// usage looks for the uses of an account.
type usage struct {
	*api
	r   *rest.Request
	tx  *db.Tx
	id  string
	out *octopus.AccountUsages
}

func (u *usage) targets(ctx context.Context) error {
	q := docstore.Query{Space: u.r.Space, Visible: u.r.Grants(machineView), Where: []docstore.Match{{Path: "Endpoint.AccountId", Any: []string{u.id}}}}
	return u.store.Each(ctx, u.tx, "machines", q, func(doc *docstore.Doc) error {
		m, err := docstore.Decode[octopus.Named](doc)
		if err == nil {
			u.out.Targets = append(u.out.Targets, octopus.TargetUsage{TargetID: m.ID, TargetName: m.Name})
		}
		return err
	})
}

// mentioning lists the ids of the documents of a kind that have the id in them.
func (u *usage) mentioning(ctx context.Context, kind string) (ids []string, err error) {
	rows, err := u.tx.Query(ctx, `SELECT d.id FROM documents d WHERE d.kind = ? AND d.space_id = ? AND d.deleted = 0 AND d.body LIKE ? ORDER BY d.seq`,
		kind, string(u.r.Space), `%"`+u.id+`"%`)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	ids = []string{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

func (u *usage) variables(ctx context.Context) error {
	ids, err := u.mentioning(ctx, setKind)
	if err != nil {
		return err
	}
	var sets []*variableSet
	var ownerIDs []string
	err = u.store.Each(ctx, u.tx, setKind, docstore.Query{Space: u.r.Space, IDs: ids, Visible: u.r.Grants(variableView)}, func(doc *docstore.Doc) error {
		s, err := u.open(setKind, doc)
		if err == nil {
			sets, ownerIDs = append(sets, s), append(ownerIDs, s.value.OwnerID)
		}
		return err
	})
	if err != nil {
		return err
	}
	owners, err := u.owners(ctx, u.tx, u.r, ownerIDs)
	if err != nil {
		return err
	}
	for _, s := range sets {
		if s.owner = owners[s.value.OwnerID]; s.owner == nil || !u.inSet(s) {
			continue
		}
		use := octopus.VariableSetUsage{ID: s.doc.ID, Name: s.owner.name}
		if s.owner.library() {
			use.ID = s.owner.id
			u.out.LibraryVariableSets = append(u.out.LibraryVariableSets, use)
			continue
		}
		use.ProjectID = octopus.NullString(s.owner.id)
		u.out.ProjectVariableSets = append(u.out.ProjectVariableSets, use)
	}
	return nil
}

// inSet reports whether a value that the caller sees is the account.
func (u *usage) inSet(s *variableSet) bool {
	for i := range s.value.Variables {
		one := &s.value.Variables[i]
		if one.Text() == u.id && s.owner.sees(&one.Scope) {
			return true
		}
	}
	return false
}

func (u *usage) processes(ctx context.Context) error {
	ids, err := u.mentioning(ctx, "deploymentprocesses")
	if err != nil {
		return err
	}
	byProject := map[string]octopus.ProcessUsage{}
	var projects []string
	err = u.store.Each(ctx, u.tx, "deploymentprocesses", docstore.Query{Space: u.r.Space, IDs: ids, Visible: u.r.Grants(processView)}, func(doc *docstore.Doc) error {
		process, err := docstore.Decode[struct {
			ProjectID string `json:"ProjectId"`
			Steps     []json.RawMessage
		}](doc)
		if err != nil {
			return err
		}
		use := octopus.ProcessUsage{ProjectID: process.ProjectID, ProcessID: doc.ID}
		for _, raw := range process.Steps {
			if !strings.Contains(string(raw), `"`+u.id+`"`) {
				continue
			}
			var s octopus.Named
			if err := json.Unmarshal(raw, &s); err != nil {
				return err
			}
			use.Steps = append(use.Steps, octopus.StepUsage{StepID: s.ID, StepName: s.Name})
		}
		if len(use.Steps) > 0 {
			byProject[process.ProjectID] = use
			projects = append(projects, process.ProjectID)
		}
		return nil
	})
	if err != nil || len(projects) == 0 {
		return err
	}
	return u.store.Each(ctx, u.tx, projectKind, docstore.Query{Space: u.r.Space, IDs: projects}, func(doc *docstore.Doc) error {
		p, err := docstore.Decode[octopus.Project](doc)
		if err != nil {
			return err
		}
		use := byProject[p.ID]
		use.ProjectName, use.ProjectSlug = p.Name, p.Slug
		u.out.DeploymentProcesses = append(u.out.DeploymentProcesses, use)
		return nil
	})
}
