package auth

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// someUsers is how many users EachAccess has in memory at a time.
const someUsers = 500

// EachAccess calls fn for every user with what they may do, in the order of their names.
// It reads them in pieces with a handful of statements each, however many teams they are
// in. An error of fn ends it.
func (s *Service) EachAccess(ctx context.Context, tx *db.Tx, fn func(u *octopus.User, a *Access) error) error {
	var last *docstore.Doc
	for {
		docs, err := s.store.After(ctx, tx, s.users, docstore.Query{}, last, someUsers)
		if err != nil {
			return err
		}
		if len(docs) == 0 {
			return nil
		}
		last = docs[len(docs)-1]
		ids := make([]string, len(docs))
		for i, doc := range docs {
			ids[i] = doc.ID
		}
		all, members, err := s.factsOf(ctx, tx, ids)
		if err != nil {
			return err
		}
		for _, doc := range docs {
			u, err := docstore.Decode[octopus.User](doc)
			if err != nil {
				return fmt.Errorf("read %s: %w", doc.ID, err)
			}
			f := all // what is of teams that the user is not in, NewAccess leaves out
			f.Teams = members[doc.ID]
			if err := fn(u, NewAccess(f)); err != nil {
				return err
			}
		}
		if len(docs) < someUsers {
			return nil
		}
	}
}

// factsOf are the facts of all the teams that some users are in, and the teams of each.
func (s *Service) factsOf(ctx context.Context, tx *db.Tx, users []string) (all Facts, members map[string][]octopus.Team, err error) {
	all.Teams, err = docstore.All[octopus.Team](ctx, s.store, tx, s.teams.Name, docstore.Query{Where: []docstore.Match{{Path: "MemberUserIds", Any: users}}})
	if err != nil {
		return all, nil, err
	}
	members = make(map[string][]octopus.Team, len(users))
	for _, user := range users {
		members[user] = nil
	}
	for _, t := range all.Teams {
		for _, id := range t.MemberUserIDs {
			if _, asked := members[id]; asked {
				members[id] = append(members[id], t)
			}
		}
	}
	var everyone octopus.Team
	switch err := s.store.Load(ctx, tx, s.teams.Name, octopus.TeamEveryone, &everyone); {
	case err == nil:
		all.Teams = append(all.Teams, everyone)
		for _, user := range users {
			members[user] = append(members[user], everyone)
		}
	case !fault.Is(err, fault.NotFound): // it comes with the first start
		return all, nil, err
	}
	return all, members, s.addRoles(ctx, tx, &all)
}
