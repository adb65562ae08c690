import {
  defaultFieldResolver,
  GraphQLError,
  Kind,
  Lexer,
  Source,
  TokenKind,
  type ASTVisitor,
  type FragmentDefinitionNode,
  type GraphQLFieldResolver,
  type SelectionSetNode,
  type ValidationContext,
} from 'graphql'
import { Fault } from '#core/fault.ts'

/** The largest query of a known client is 8 levels deep and has 70 fields. */
export const queryBounds = {
  depthMax: 15,
  fieldsMax: 1_000,
  rootFieldsMax: 10,
  tokensMax: 5_000,
  /** Queries that are kept once they were found right, and the letters of the longest. */
  keptMax: 200,
  keptTextMax: 10_000,
  /** Brackets of all kinds inside each other. */
  nestingMax: 100,
  /** An answer with 10,000 machines and twenty fields of each. */
  answeredFieldsMax: 250_000,
  /** Of them those that ask the database or a host: all at once they would keep everybody else waiting. */
  lookupsMax: 2_000,
} as const

const opening: readonly string[] = [TokenKind.BRACE_L, TokenKind.BRACKET_L, TokenKind.PAREN_L]
const closing: readonly string[] = [TokenKind.BRACE_R, TokenKind.BRACKET_R, TokenKind.PAREN_R]

/** The parser takes stack frames for each level, so how deep a text goes is told from its tokens, before it is parsed. */
export function refuseDeepText(query: string): void {
  const lexer = new Lexer(new Source(query))
  let depth = 0
  for (let tokens = 0; tokens < queryBounds.tokensMax; tokens++) {
    const { kind } = lexer.advance()
    if (kind === TokenKind.EOF) return
    if (opening.includes(kind)) depth++
    if (closing.includes(kind)) depth--
    if (depth > queryBounds.nestingMax) {
      throw new GraphQLError(`the query is nested deeper than ${queryBounds.nestingMax} levels`)
    }
  }
}

/**
 * Resolves fields as ever and counts them: lists within lists within lists are few words to ask for and no end to answer.
 * Too many abort `end` with a Fault `limit_reached`.
 */
export function boundedResolver(end: AbortController): GraphQLFieldResolver<unknown, unknown> {
  const { answeredFieldsMax, lookupsMax } = queryBounds
  let fields = 0
  let lookups = 0
  const stop = (what: string): never => {
    const fault = new Fault(
      'limit_reached',
      `the answer needs more than ${what}; ask for fewer lists inside lists`,
    )
    end.abort(fault)
    throw fault
  }
  return (source, args, context, info) => {
    if (++fields > answeredFieldsMax) return stop(`${answeredFieldsMax} fields`)
    if (lookups > lookupsMax) return stop(`${lookupsMax} look-ups`)
    const value = defaultFieldResolver(source, args, context, info)
    if (value instanceof Promise) lookups++
    return value
  }
}

/** Counts what a query asks for with its fragments written out, and refuses it before anything is run. */
export function boundedQuery(context: ValidationContext): ASTVisitor {
  const fragments = new Map<string, FragmentDefinitionNode>()
  for (const node of context.getDocument().definitions) {
    if (node.kind === Kind.FRAGMENT_DEFINITION) fragments.set(node.name.value, node)
  }
  let steps = 0
  let fields = 0
  let roots = 0
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
      // Also those that come by a fragment.
      if (selection.kind === Kind.FIELD && depth === 1 && ++roots > queryBounds.rootFieldsMax) {
        return refuse(`asks for more than ${queryBounds.rootFieldsMax} things`)
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
      roots = 0
      walk(node.selectionSet, 1)
    },
  }
}
