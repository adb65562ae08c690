import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import type { TokenScope } from '../store/index.ts'
import { appsReadBy, covers, mayUseApp, mayUseOrg } from './permissions.ts'

const org = fc.constantFrom('org_a', 'org_b')
const app = fc.constantFrom('app_1', 'app_2')
const scope: fc.Arbitrary<TokenScope> = fc.oneof(
  fc.constant<TokenScope>({ profile: 'admin' }),
  fc.record<TokenScope>({
    profile: fc.constantFrom('org', 'readonly', 'identity'),
    org_id: org,
  }),
  fc.record<TokenScope>({
    profile: fc.constantFrom('deploy', 'readonly'),
    org_id: org,
    app_id: app,
  }),
)

test('what a token may make can do nothing that it may not do itself, anywhere', () => {
  fc.assert(
    fc.property(scope, scope, org, app, (has, wanted, id, appId) => {
      fc.pre(covers(has, wanted))
      const there = { id: appId, org: { id, number: 1, slug: id, name: id } }
      for (const access of ['know', 'read', 'write'] as const) {
        if (mayUseOrg({ scope: wanted }, id, access))
          assert.ok(mayUseOrg({ scope: has }, id, access))
        if (access === 'know') continue
        if (mayUseApp({ scope: wanted }, there, access)) {
          assert.ok(mayUseApp({ scope: has }, there, access))
        }
      }
    }),
    { numRuns: 2_000 },
  )
})

test('lists are filtered to what a token may read, no more and no less', () => {
  fc.assert(
    fc.property(scope, org, app, (one, id, appId) => {
      const there = { id: appId, org: { id, number: 1, slug: id, name: id } }
      const filter = appsReadBy({ scope: one })
      const shown = [
        [filter.orgId, id],
        [filter.id, appId],
      ].every(([wanted, is]) => wanted === undefined || wanted === is)
      assert.equal(shown, mayUseApp({ scope: one }, there, 'read'))
    }),
  )
})

test('a token may make its like, and only the operator another operator', () => {
  fc.assert(fc.property(scope, (one) => assert.ok(covers(one, one))))
  fc.assert(
    fc.property(scope, (one) =>
      assert.equal(covers(one, { profile: 'admin' }), one.profile === 'admin'),
    ),
  )
})
