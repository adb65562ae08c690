import {
  GraphQLError,
  Kind,
  type ASTVisitor,
  type FragmentDefinitionNode,
  type SelectionSetNode,
  type ValidationContext,
} from 'graphql'

/** The largest query of a known client is 8 levels deep and has 70 fields. */
export const queryBounds = {
  depthMax: 15,
  fieldsMax: 1_000,
  rootFieldsMax: 10,
  tokensMax: 5_000,
} as const

/** Counts what a query asks for with its fragments written out, and refuses it before anything is run. */
export function boundedQuery(context: ValidationContext): ASTVisitor {
  const fragments = new Map<string, FragmentDefinitionNode>()
  for (const node of context.getDocument().definitions) {
    if (node.kind === Kind.FRAGMENT_DEFINITION) fragments.set(node.name.value, node)
  }
  let steps = 0
  let fields = 0
  const refuse = (what: string) => {
    context.reportError(new GraphQLError(`the query ${what}; ask for less at a time`))
    return false
  }
  const walk = (set: SelectionSetNode, depth: number): boolean => {
    if (depth > queryBounds.depthMax) return refuse(`is deeper than ${queryBounds.depthMax} levels`)
    for (const selection of set.selections) {
      // A fragment that spreads itself is refused by another rule; here it must only come to an end.
      if (++steps > queryBounds.fieldsMax * 2) return refuse('has too many fragments')
      if (selection.kind === Kind.FIELD && ++fields > queryBounds.fieldsMax) {
        return refuse(`has more than ${queryBounds.fieldsMax} fields`)
      }
      const inner =
        selection.kind === Kind.FRAGMENT_SPREAD
          ? fragments.get(selection.name.value)?.selectionSet
          : selection.selectionSet
      const deeper = selection.kind === Kind.FIELD ? depth + 1 : depth
      if (inner && !walk(inner, deeper)) return false
    }
    return true
  }
  return {
    OperationDefinition(node) {
      if (node.selectionSet.selections.length > queryBounds.rootFieldsMax) {
        refuse(`asks for more than ${queryBounds.rootFieldsMax} things`)
        return
      }
      walk(node.selectionSet, 1)
    },
  }
}
