package octopus

// Form is a set of questions to a person: the prompts of a deployment, or the
// buttons of an interruption.
type Form struct {
	// Values are the answers, by the element's name.
	Values   Map[string, PropertyText] `json:"Values"`
	Elements List[FormElement]         `json:"Elements"`
}

// FormElement is one question.
type FormElement struct {
	// Name is the key of the answer; for a prompted variable it is its id.
	Name            string      `json:"Name"`
	Control         FormControl `json:"Control"`
	IsValueRequired bool        `json:"IsValueRequired"`
}

// FormControlType is the kind of a form's control.
type FormControlType string

// Kinds of controls.
const (
	FormVariableValue FormControlType = "VariableValue"
	FormParagraph     FormControlType = "Paragraph"
	FormTextArea      FormControlType = "TextArea"
	FormCheckbox      FormControlType = "Checkbox"
	FormButtons       FormControlType = "SubmitButtonGroup"
)

// FormControl is how a question is asked. Which members have a meaning depends
// on the type; the others are absent.
type FormControl struct {
	Type FormControlType `json:"Type"`
	// Name, Label, Description, Required and DisplaySettings are a prompted variable's.
	Name            string              `json:"Name,omitempty"`
	Label           string              `json:"Label,omitempty"`
	Description     string              `json:"Description,omitempty"`
	Required        bool                `json:"Required,omitempty"`
	IsSecure        bool                `json:"IsSecure,omitempty"`
	DisplaySettings Map[string, string] `json:"DisplaySettings,omitempty"`
	// Text is a paragraph's, or a checkbox's.
	Text string `json:"Text,omitempty"`
	// ResolveLinks tells that a paragraph is Markdown.
	ResolveLinks bool `json:"ResolveLinks,omitempty"`
	// Buttons are a button group's.
	Buttons List[FormButton] `json:"Buttons,omitempty"`
}

// FormButton is a button that ends a form.
type FormButton struct {
	Text  string `json:"Text"`
	Value string `json:"Value"`
	// RequiresConfirmation asks once more before the answer is sent.
	RequiresConfirmation bool `json:"RequiresConfirmation"`
}
