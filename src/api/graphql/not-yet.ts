import { connection, notYet } from './context.ts'

/** Add-ons: none exist, and none can be made. `apps destroy` asks for the list. */
export const laterQueries = {
  addOn: () => notYet('add-ons are'),
  addOns: () => connection([]),
  addOnPlans: () => connection([]),
  addOnProvider: () => notYet('add-ons are'),
  postgresAttachments: () => connection([]),
}

/** Asked for by clients, served by later versions. */
export const laterMutations = {
  addWireGuardPeer: () => notYet('WireGuard peers are'),
  removeWireGuardPeer: () => notYet('WireGuard peers are'),
  /** None is valid, for none was made: a client drops those it remembers. */
  validateWireGuardPeers: (args: { input: { peerIps: string[] } }) => ({
    invalidPeerIps: args.input.peerIps,
    validPeerIps: [],
  }),
  createDelegatedWireGuardToken: () => notYet('WireGuard tokens are'),
  deleteDelegatedWireGuardToken: () => notYet('WireGuard tokens are'),
  issueCertificate: () => notYet('SSH certificates are'),
  attachPostgresCluster: () => notYet('Postgres clusters are'),
  detachPostgresCluster: () => notYet('Postgres clusters are'),
  enablePostgresConsul: () => notYet('Postgres clusters are'),
  createAddOn: () => notYet('add-ons are'),
  updateAddOn: () => notYet('add-ons are'),
  deleteAddOn: () => notYet('add-ons are'),
  resetAddOnPassword: () => notYet('add-ons are'),
  createExtensionTosAgreement: () => notYet('add-ons are'),
  createDoctorUrl: () => notYet('uploads of doctor reports are'),
}
