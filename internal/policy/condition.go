package policy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
	_ "time/tzdata" // time zones in conditions do not depend on the machine

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

// A condition is a CEL expression (https://cel.dev) that must be true for its rule to
// count. What it can ask about is in Facts.

// Limits of conditions.
const (
	// MaxCondition is how long an expression may be, in bytes.
	MaxCondition = 4 << 10
	// conditionCost is how much work an evaluation may be, in CEL's units: a
	// comparison is one, a text costs by its length. It is about a millisecond.
	conditionCost = 50_000
	// conditionDepth is how deep an expression may nest.
	conditionDepth = 40
	// conditionTime ends the conditions of a decision whatever they cost, and
	// conditionCount is how many of them are looked at.
	conditionTime  = 100 * time.Millisecond
	conditionCount = 100
	// toldConditions is how many of them a refusal tells of.
	toldConditions = 5
)

// Facts are what conditions can ask about: request.*, identity.* and now.
type Facts struct {
	Time       time.Time
	Path       string // as policies name it
	Operation  string // the capability that is needed: "read"
	Namespace  string
	Remote     netip.Addr
	WrapTTL    time.Duration
	Parameters []string // names; values can be secrets

	DisplayName string
	TokenType   string
	Policies    []string
	EntityID    string
	EntityName  string
	Metadata    map[string]string // of the entity
	Groups      []string          // names
}

func (f *Facts) variables() map[string]any {
	remote := ""
	if f.Remote.IsValid() {
		remote = f.Remote.Unmap().String()
	}
	metadata := f.Metadata
	if metadata == nil {
		metadata = map[string]string{}
	}
	return map[string]any{
		"now": f.Time, "request.path": f.Path, "request.operation": f.Operation, "request.namespace": f.Namespace,
		"request.remote_address": remote, "request.wrap_ttl": f.WrapTTL, "request.parameters": f.Parameters,
		"identity.display_name": f.DisplayName, "identity.token_type": f.TokenType, "identity.policies": f.Policies,
		"identity.groups": f.Groups, "identity.entity.id": f.EntityID, "identity.entity.name": f.EntityName,
		"identity.entity.metadata": metadata,
	}
}

// condition is a compiled expression.
type condition struct {
	text    string
	program cel.Program
}

// conditions is CEL with the names that conditions know.
var conditions = sync.OnceValues(func() (*cel.Env, error) {
	texts := cel.ListType(cel.StringType)
	return cel.NewEnv(
		cel.Variable("now", cel.TimestampType),
		cel.Variable("request.path", cel.StringType),
		cel.Variable("request.operation", cel.StringType),
		cel.Variable("request.namespace", cel.StringType),
		cel.Variable("request.remote_address", cel.StringType),
		cel.Variable("request.wrap_ttl", cel.DurationType),
		cel.Variable("request.parameters", texts),
		cel.Variable("identity.display_name", cel.StringType),
		cel.Variable("identity.token_type", cel.StringType),
		cel.Variable("identity.policies", texts),
		cel.Variable("identity.groups", texts),
		cel.Variable("identity.entity.id", cel.StringType),
		cel.Variable("identity.entity.name", cel.StringType),
		cel.Variable("identity.entity.metadata", cel.MapType(cel.StringType, cel.StringType)),
		cel.Function("in_cidr", cel.Overload("in_cidr_string_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType,
			cel.BinaryBinding(inCIDR))),
		ext.Strings(ext.StringsVersion(5)), // earlier ones cost nothing, however long the text

		cel.ParserExpressionSizeLimit(MaxCondition),
		cel.ParserRecursionLimit(conditionDepth),
	)
})

// inCIDR reports whether an address lies in a network. What is neither is an error,
// so that a typing mistake allows nothing.
func inCIDR(address, network ref.Val) ref.Val {
	a, err := netip.ParseAddr(fmt.Sprint(address.Value()))
	if err != nil {
		return types.NewErr("in_cidr: %q is no address", fmt.Sprint(address.Value()))
	}
	n, err := netip.ParsePrefix(fmt.Sprint(network.Value()))
	if err == nil && n.Addr().Is4In6() {
		n, err = n.Addr().Unmap().Prefix(n.Bits() - 96)
	}
	if err != nil {
		return types.NewErr("in_cidr: %q is no network", fmt.Sprint(network.Value()))
	}
	return types.Bool(n.Masked().Contains(a.Unmap().WithZone("")))
}

// compileCondition reads an expression. The error says what is wrong with it.
func compileCondition(text string) (*condition, error) {
	if len(text) > MaxCondition {
		return nil, fmt.Errorf("it is %d bytes long; at most %d are accepted", len(text), MaxCondition)
	}
	env, err := conditions()
	if err != nil {
		return nil, err
	}
	expression, issues := env.Compile(text)
	if issues != nil && issues.Err() != nil {
		return nil, fmt.Errorf("%s", firstLine(issues.Err().Error()))
	}
	if t := expression.OutputType(); !t.IsExactType(cel.BoolType) {
		return nil, fmt.Errorf("it is a %s, and must be true or false", t)
	}
	if calls(expression, "matches") {
		// Its work is not bounded: it is charged only when it is done.
		return nil, fmt.Errorf("matches is not there; startsWith, endsWith, contains and split are")
	}
	program, err := env.Program(expression, cel.CostLimit(conditionCost), cel.InterruptCheckFrequency(64))
	if err != nil {
		return nil, err
	}
	return &condition{text, program}, nil
}

// calls reports whether an expression calls a function.
func calls(a *cel.Ast, function string) bool {
	found := false
	ast.PreOrderVisit(a.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		found = found || e.Kind() == ast.CallKind && e.AsCall().FunctionName() == function
	}))
	return found
}

// firstLine is a message of CEL without the picture of the place, which is said by the
// policy's line.
func firstLine(text string) string {
	line, _, _ := strings.Cut(text, "\n")
	return strings.TrimPrefix(line, "ERROR: <input>:")
}

// holds evaluates the condition. An error says why it could not be: what is not there,
// or that it is too much work.
func (c *condition) holds(r *Request) (bool, error) {
	facts := r.known()
	switch {
	case facts == nil:
		return false, errors.New("nothing is known here that it could ask about")
	case r.conditions >= conditionCount:
		return false, fmt.Errorf("there are more than %d conditions to be met", conditionCount)
	}
	r.conditions++
	ctx, cancel := context.WithDeadline(context.Background(), r.patience)
	defer cancel()
	out, _, err := c.program.ContextEval(ctx, facts)
	if err != nil {
		return false, err
	}
	ok, is := out.Value().(bool)
	if !is {
		return false, fmt.Errorf("it is %v, and must be true or false", out.Type())
	}
	return ok, nil
}

// under returns the permission as the request's facts leave it: a rule counts where its
// condition is true, and one whose condition cannot be told denies. Where rules do not
// count because of their conditions, unmet says so.
func (p *permission) under(r *Request) (out *permission, unmet []string) {
	if !p.conditional {
		return p, nil
	}
	out = &permission{pattern: p.pattern}
	for _, s := range p.sources {
		if s.rule.when == nil {
			out.merge(s)
			continue
		}
		ok, err := s.rule.when.holds(r)
		where := fmt.Sprintf("the condition of rule %s of policy %s", s.rule.Path, s.policy)
		switch {
		case err != nil:
			unmet = append(unmet, where+" cannot be told, so it denies: "+err.Error())
			out.sources = append(out.sources, s)
			out.join(&permission{granted: Deny})
		case ok:
			out.count(s)
		case s.rule.Capabilities&Deny == 0:
			unmet = append(unmet, where+" is not met")
		}
	}
	if len(out.sources) == 0 {
		out.sources = p.sources // to be named
	}
	return out, unmet
}

// known returns the facts that conditions are evaluated with, nil when there are none.
func (r *Request) known() map[string]any {
	if r.variables == nil && r.Facts != nil {
		facts := *r.Facts() // others may hold it
		if facts.Operation == "" {
			facts.Operation = r.Need.String()
		}
		if facts.Path == "" {
			facts.Path = r.Path
		}
		r.variables, r.patience = facts.variables(), time.Now().Add(conditionTime)
	}
	return r.variables
}

// under resolves the conditions of the winners.
func (v verdict) under(r *Request) (verdict, string) {
	var unmet []string
	for _, winner := range []**permission{&v.wire, &v.plain} {
		if *winner == nil {
			continue
		}
		var notes []string
		*winner, notes = (*winner).under(r)
		unmet = append(unmet, notes...)
	}
	if more := len(unmet) - toldConditions; more > 0 {
		unmet = append(unmet[:toldConditions], fmt.Sprintf("and of %d more", more))
	}
	return v, strings.Join(unmet, "; ")
}
