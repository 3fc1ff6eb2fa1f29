package resources

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Limits of a tag set.
const (
	maxTags    = 2000
	maxTagName = 200 // bytes, of a tag and of its set each
)

// defaultTagColor is given to a tag that has none.
const defaultTagColor = "#333333"

var tagColor = regexp.MustCompile(`^#[0-9A-Fa-f]{6}$`)

// TagSets are the dimensions by which tenants, environments and projects are
// sorted. A tag is known everywhere by its canonical name, "Set/Tag": one that is
// renamed is renamed wherever it stands, and one that stands somewhere cannot be
// removed. Everybody who knows the space may read them, since every list of
// tenants or targets shows their names.
func TagSets() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.TagSet]{
		Name: "tagsets", ItemType: "TagSet", Noun: "tag set", Prefix: "TagSets", Order: resource.ByNumber,
		Permissions: resource.Permissions{Create: "TagSetCreate", Edit: "TagSetEdit", Delete: "TagSetDelete"},
		Filters:     []resource.Filter{{Param: "scopes", Path: "Scopes"}},
		Owned:       []string{"IsSystem"},
		Prepare:     prepareTagSet,
		Check:       checkTagSet,
		InTx:        tagSetInTx,
	})
}

func prepareTagSet(v *octopus.TagSet) {
	if v.Type == "" {
		v.Type = octopus.TagMultiSelect
	}
	if len(v.Scopes) == 0 {
		v.Scopes = octopus.List[octopus.TagSetScope]{octopus.TagScopeTenant}
	}
	v.Name = strings.TrimSpace(v.Name)
	for i := range v.Tags {
		t := &v.Tags[i]
		t.Name = strings.TrimSpace(t.Name)
		t.CanonicalTagName = v.Name + "/" + t.Name
		if t.Color == "" {
			t.Color = defaultTagColor
		}
	}
}

func checkTagSet(ctx context.Context, r resource.Reader, old, v *octopus.TagSet) error {
	if len(v.Tags) > maxTags {
		return fault.InvalidField("Tags", "Tags has %d entries; use at most %d.", len(v.Tags), maxTags)
	}
	faults := []error{oneOf("Type", &v.Type, octopus.TagMultiSelect, octopus.TagSingleSelect, octopus.TagFreeText)}
	if strings.Contains(v.Name, "/") {
		faults = append(faults, fault.InvalidField("Name", "Name is '%.100s', and a slash parts a set from its tags; use another sign.", v.Name))
	}
	for i := range v.Scopes {
		faults = append(faults, oneOf("Scopes", &v.Scopes[i], octopus.TagScopeTenant, octopus.TagScopeEnvironment, octopus.TagScopeProject, octopus.TagScopeRunbook, octopus.TagScopeTarget))
	}
	names := map[string]bool{}
	for i := range v.Tags {
		t, field := &v.Tags[i], fmt.Sprintf("Tags[%d]", i)
		switch folded := ident.Fold(t.Name); {
		case t.Name == "":
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is empty; give the tag a name.", field))
		case len(t.Name) > maxTagName:
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name has %d bytes; use at most %d.", field, len(t.Name), maxTagName))
		case strings.Contains(t.Name, "/"):
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is '%.100s', and a slash parts a set from its tags; use another sign.", field, t.Name))
		case names[folded]:
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is '%.100s', which stands in the set twice; name each tag once.", field, t.Name))
		default:
			names[folded] = true
		}
		if !tagColor.MatchString(t.Color) {
			faults = append(faults, fault.InvalidField(field+".Color", "%s.Color is '%.100s'; give a colour such as #ECAD3F.", field, t.Color))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return err
	}
	numberTags(old, v)
	if old != nil || v.SortOrder != 0 {
		return nil
	}
	last, err := lastNumber(ctx, r, "tagsets", v.SpaceID)
	v.SortOrder = last + 1 // a new one goes to the end
	return err
}

// numberTags gives every tag an id within its set. One that comes without keeps
// that of its name; ids of others are not believed.
func numberTags(old, v *octopus.TagSet) {
	known, byName, last := map[string]bool{}, map[string]string{}, 0
	if old != nil {
		for _, t := range old.Tags {
			known[t.ID], byName[ident.Fold(t.Name)] = true, t.ID
			_, n, _ := strings.Cut(t.ID, "/Tags-")
			if n, err := strconv.Atoi(n); err == nil {
				last = max(last, n)
			}
		}
	}
	taken := map[string]bool{}
	for i := range v.Tags {
		if t := &v.Tags[i]; known[t.ID] && !taken[t.ID] {
			taken[t.ID] = true
		} else {
			t.ID = ""
		}
	}
	for i := range v.Tags {
		t := &v.Tags[i]
		if t.ID != "" {
			continue
		}
		if id := byName[ident.Fold(t.Name)]; id != "" && !taken[id] {
			t.ID = id
		} else {
			last++
			t.ID = v.ID + "/Tags-" + strconv.Itoa(last)
		}
		taken[t.ID] = true
	}
}

// tagSetInTx follows renamed tags, and refuses to remove what is in use.
func tagSetInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.TagSet]) error {
	if c.Op == resource.Created {
		return nil
	}
	now, free := map[string]string{}, false // canonical names by id
	if c.New != nil {
		free = c.New.Type == octopus.TagFreeText
		for _, t := range c.New.Tags {
			now[t.ID] = t.CanonicalTagName
		}
	}
	// What each name that there was is called now; "" is no more.
	names, changed := map[string]string{}, c.New == nil || c.New.Name != c.Old.Name
	for _, t := range c.Old.Tags {
		names[ident.Fold(t.CanonicalTagName)] = now[t.ID]
		changed = changed || now[t.ID] != t.CanonicalTagName
	}
	if !changed {
		return nil
	}
	return eachTagged(ctx, w, c.Space, c.Old.Name, func(h tagHolder, id string, doc resource.Tree) error {
		renamed := false
		var gone string
		resource.Walk(doc, h.path, func(obj resource.Tree, key string) {
			list, _ := obj[key].([]any)
			for i, e := range list {
				tag, _ := e.(string)
				set, name, _ := strings.Cut(tag, "/")
				if ident.Fold(set) != ident.Fold(c.Old.Name) {
					continue
				}
				next, listed := names[ident.Fold(tag)]
				switch {
				case next == "" && free: // still allowed, as a text of its own
					next = c.New.Name + "/" + name
				case next == "" && (listed || c.New == nil):
					gone = tag
					continue
				case next == "":
					continue // it was none of the set's before either
				}
				if next != tag {
					list[i], renamed = next, true
				}
			}
		})
		switch {
		case gone != "":
			label := id
			if name := resource.Text(doc, "Name"); name != "" {
				label = "'" + name + "' (" + id + ")"
			}
			return fault.New(fault.Conflict, "The tag '%s' cannot be deleted because it is used by %s; take it away there first.", gone, label)
		case renamed:
			return w.Replace(ctx, h.kind, id, doc)
		}
		return nil
	})
}

// tagHolder is a kind whose documents name tags, and where.
type tagHolder struct{ kind, path string }

func tagHolders() []tagHolder {
	return []tagHolder{
		{"tenants", "TenantTags"},
		{"environments", "EnvironmentTags"},
		{"projects", "ProjectTags"},
		{"machines", "TenantTags"},
		{"accounts", "TenantTags"},
		{"channels", "TenantTags"},
		{"certificates", "TenantTags"},
		{"deploymentprocesses", "Steps.*.Actions.*.TenantTags"},
		{"variables", "Variables.*.Scope.TenantTag"},
		{"projecttriggers", "Action.TenantTags"},
	}
}

// eachTagged calls fn for every document of a space that may name a tag of a set:
// the database finds those whose text has it, and what they say decides.
func eachTagged(ctx context.Context, w resource.Writer, space ident.SpaceID, set string, fn func(h tagHolder, id string, doc resource.Tree) error) error {
	quoted, err := encodedText(set + "/")
	if err != nil {
		return err
	}
	pattern := db.Containing(strings.TrimSuffix(quoted, `"`))
	for _, h := range tagHolders() {
		ids, err := column(ctx, w, `SELECT d.id FROM documents d WHERE d.kind = ? AND d.space_id = ? AND d.deleted = 0 AND lower(d.body) LIKE lower(?) ESCAPE '\' ORDER BY d.seq, d.id`,
			h.kind, string(space), pattern)
		if err != nil {
			return fmt.Errorf("look up uses of tags: %w", err)
		}
		for _, id := range ids {
			doc := resource.Tree{}
			if err := w.Load(ctx, h.kind, id, &doc); err != nil {
				return err
			}
			if err := fn(h, id, doc); err != nil {
				return err
			}
		}
	}
	return nil
}

// tagList is a list of tags in a document.
type tagList struct {
	field string
	tags  octopus.List[string]
}

// checkTags spells the tags that a document bears as their sets do, and refuses those
// that no set for the scope has, and two of a set that allows one. had are the tags of
// before: one that is left from a set of old may stay.
func checkTags(ctx context.Context, r resource.Reader, space string, scope octopus.TagSetScope, field string, tags, had octopus.List[string]) error {
	sets, err := tagSets(ctx, r, space, tags)
	if err != nil {
		return err
	}
	faults := []error{sets.spell(scope, tagList{field, tags}, had)}
	single := map[*octopus.TagSet]bool{}
	for _, tag := range tags {
		set, _ := sets.find(tag)
		if set == nil || set.Type != octopus.TagSingleSelect {
			continue
		}
		if single[set] {
			faults = append(faults, fault.InvalidField(field, "%s has more than one tag of the set '%s', which allows one; keep one of them.", field, set.Name))
		}
		single[set] = true
	}
	return errors.Join(faults...)
}

// checkTenantTags is checkTags for lists that say by tags which tenants something is
// for. There may be several of one set in them: they are for any of these.
func checkTenantTags(ctx context.Context, r resource.Reader, space string, had octopus.List[string], lists ...tagList) error {
	var all octopus.List[string]
	for _, l := range lists {
		all = append(all, l.tags...)
	}
	sets, err := tagSets(ctx, r, space, all)
	if err != nil {
		return err
	}
	var faults []error
	for _, l := range lists {
		faults = append(faults, sets.spell(octopus.TagScopeTenant, l, had))
	}
	return errors.Join(faults...)
}

// tagBook is the tag sets of a space by their folded names.
type tagBook map[string]*octopus.TagSet

// tagSets reads the tag sets of a space, if there are tags to look up.
func tagSets(ctx context.Context, r resource.Reader, space string, tags octopus.List[string]) (tagBook, error) {
	if len(tags) == 0 {
		return nil, nil //nolint:nilnil // nothing is asked of it
	}
	bodies, err := column(ctx, r, `SELECT d.body FROM documents d WHERE d.kind = 'tagsets' AND d.space_id = ? AND d.deleted = 0`, space)
	if err != nil {
		return nil, fmt.Errorf("read tag sets: %w", err)
	}
	sets := tagBook{}
	for _, body := range bodies {
		set := new(octopus.TagSet)
		if err := decodeText(body, set); err != nil {
			return nil, fmt.Errorf("read tag set: %w", err)
		}
		sets[ident.Fold(set.Name)] = set
	}
	return sets, nil
}

// find finds the set of a tag and the tag's canonical name; nil and "" where there is
// none.
func (b tagBook) find(tag string) (*octopus.TagSet, string) {
	name, rest, parted := strings.Cut(tag, "/")
	set := b[ident.Fold(strings.TrimSpace(name))]
	if !parted || set == nil {
		return set, ""
	}
	return set, spelling(set, strings.TrimSpace(rest))
}

// spell spells tags as their sets do, and refuses those that there are none of for the
// scope, unless they were had before.
func (b tagBook) spell(scope octopus.TagSetScope, l tagList, had octopus.List[string]) error {
	var faults []error
	for i, tag := range l.tags {
		set, spelled := b.find(tag)
		switch {
		case spelled != "" && hasScope(set, scope):
			l.tags[i] = spelled
		case slices.ContainsFunc(had, func(old string) bool { return ident.Fold(old) == ident.Fold(tag) }):
		default:
			faults = append(faults, fault.InvalidField(l.field, "%s names '%.100s', which is no tag for %ss; give the canonical name of a tag, such as Region/Europe, of a tag set with that scope.", l.field, tag, strings.ToLower(string(scope))))
		}
	}
	return errors.Join(faults...)
}

func hasScope(set *octopus.TagSet, scope octopus.TagSetScope) bool {
	for _, s := range set.Scopes {
		if s == scope {
			return true
		}
	}
	return len(set.Scopes) == 0
}

// spelling is a tag's canonical name, "" when the set has none of that name.
func spelling(set *octopus.TagSet, name string) string {
	for _, t := range set.Tags {
		if ident.Fold(t.Name) == ident.Fold(name) {
			return t.CanonicalTagName
		}
	}
	if set.Type == octopus.TagFreeText && name != "" && len(name) <= maxTagName && !strings.Contains(name, "/") {
		return set.Name + "/" + name
	}
	return ""
}
