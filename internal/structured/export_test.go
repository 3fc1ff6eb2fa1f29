package structured

// SelectText evaluates an XPath expression on a document, for tests that look at
// a result.
func SelectText(document, expression string) ([]string, error) {
	doc, err := parseXML(document, true)
	if err != nil {
		return nil, err
	}
	path, err := compileXPath(expression, documentSpaces(doc, &Result{}))
	if err != nil {
		return nil, err
	}
	nodes, err := path.nodes(doc)
	if err != nil {
		return nil, err
	}
	texts := []string{}
	for _, n := range nodes {
		texts = append(texts, n.text())
	}
	return texts, nil
}
