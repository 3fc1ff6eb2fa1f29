package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
)

// openAPI serves the document of describeAPI, which the first who asks for it waits for:
// it takes as long as the rest of a start, and most starts need none.
func (s *Server) openAPI(*Request) (any, error) {
	doc, err := s.schema()
	if err != nil {
		return nil, err
	}
	return doc, nil
}

// describeAPI makes the OpenAPI document of the table of routes. A route stands
// there once, at its first path; the description says where else it answers.
func (s *Server) describeAPI() (json.RawMessage, error) {
	types := newSchemas()
	paths := map[string]schema{}
	for i := range s.table.routes {
		r := &s.table.routes[i]
		for n, m := range r.paths() {
			if n > 0 && (m.home || strings.HasPrefix(m.path, "/api/spaces/{space}")) {
				continue // other spellings of the first
			}
			path := strings.ReplaceAll(strings.TrimSuffix(m.path, "/"), "...}", "}")
			if paths[path] == nil {
				paths[path] = schema{}
			}
			paths[path][strings.ToLower(r.Method)] = s.operation(types, r, m.path)
		}
	}
	failure := types.of(reflect.TypeFor[errorBody](), false)
	doc := schema{
		"openapi": "3.0.3",
		"info": schema{
			"title":       "Tako",
			"version":     s.Version,
			"description": "The API of a Tako server, compatible with Octopus Deploy's. Every path under /api/{space} also answers under /api/spaces/{space}, and without a space for the default one. Paths and the names of members and query parameters are matched without case.",
		},
		"servers": []schema{{"url": s.base + "/"}},
		"paths":   paths,
		"components": schema{
			"schemas": types.named,
			"responses": schema{"Failure": schema{
				"description": "What went wrong, in words.",
				"content":     schema{"application/json": schema{"schema": failure}},
			}},
			"securitySchemes": schema{
				"apiKey": schema{"type": "apiKey", "in": "header", "name": "X-Octopus-ApiKey"},
				"bearer": schema{"type": "http", "scheme": "bearer"},
			},
		},
		"security": []schema{{"apiKey": []string{}}, {"bearer": []string{}}},
	}
	body, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("describe the API: %w", err)
	}
	return body, nil
}

func (s *Server) operation(types *schemas, r *Route, path string) schema {
	op := schema{
		"summary":     r.Summary,
		"tags":        []string{r.group()},
		"operationId": operationID(r.Method, path),
		"description": needs(r.Permission),
	}
	if r.Permission == Public {
		op["security"] = []schema{}
	}
	var parameters []schema
	for segment := range strings.SplitSeq(path, "/") {
		name, ok := strings.CutPrefix(segment, "{")
		if !ok {
			continue
		}
		name = strings.TrimSuffix(strings.TrimSuffix(name, "}"), "...")
		parameters = append(parameters, schema{"name": name, "in": "path", "required": true, "schema": schema{"type": "string"}})
	}
	for _, q := range r.Query {
		parameters = append(parameters, schema{"name": q.Name, "in": "query", "description": q.About, "schema": q.schema()})
	}
	if parameters != nil {
		op["parameters"] = parameters
	}
	if r.Body != nil {
		op["requestBody"] = schema{"content": schema{"application/json": schema{"schema": types.of(r.Body, true)}}}
	}
	success := schema{"description": "Done."}
	switch {
	case r.Streams:
		success["content"] = schema{"text/event-stream": schema{"schema": schema{"type": "string"}}}
	case r.ContentType != "":
		success["content"] = schema{r.ContentType: schema{"schema": schema{"type": "string", "format": "binary"}}}
	case r.item != nil && r.op == "list":
		success["content"] = schema{"application/json": schema{"schema": types.page(r.item)}}
	default:
		success["content"] = schema{"application/json": schema{"schema": types.of(r.Response, false)}}
	}
	responses := schema{"200": success, "default": schema{"$ref": "#/components/responses/Failure"}}
	if r.Failure != nil {
		responses["default"] = schema{
			"description": "What went wrong, in words; what the operation itself did not find is in the API's own form.",
			"content":     schema{"application/json": schema{"schema": schema{"anyOf": []schema{types.of(r.Failure, false), types.of(reflect.TypeFor[errorBody](), false)}}}},
		}
	}
	if r.Method == http.MethodPost || r.Upload {
		responses["201"] = success
	}
	op["responses"] = responses
	return op
}

func needs(permission string) string {
	switch permission {
	case Public:
		return "Open to everybody."
	case SignedIn:
		return "Open to everybody who is signed in."
	default:
		return "Needs the permission " + permission + "."
	}
}

// operationID is a name for generated code: "get_api_space_projects_id".
func operationID(method, path string) string {
	words := strings.FieldsFunc(path, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
	return strings.ToLower(method) + "_" + strings.Join(words, "_")
}

func (p Param) schema() schema {
	switch p.Type {
	case Number:
		return schema{"type": "integer", "minimum": 0}
	case Boolean:
		return schema{"type": "boolean"}
	case Moment:
		return schema{"type": "string", "format": "date-time"}
	case List:
		return schema{"type": "string", "description": "separated by commas"}
	case Text:
		return schema{"type": "string"}
	default:
		return schema{}
	}
}
