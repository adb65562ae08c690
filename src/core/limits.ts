/** A limit on everything. Reaching one is an error that says so. */
export const limits = {
  /** Body of an API request: of one with machines' files, secrets or a definition, and of any other. */
  apiLargeBodyBytesMax: 4 * 1024 * 1024,
  apiBodyBytesMax: 1024 * 1024,
  /** Of a request to a host: all secrets of an app go in one. */
  hostBodyBytesMax: 10 * 1024 * 1024,
  /** Until that body has arrived. */
  apiBodyMsMax: 60_000,
  /** Objects and lists of a request's body inside each other. */
  jsonDepthMax: 100,
  /** A machine's config as JSON: it is in every read of the machine. */
  configBytesMax: 2 * 1024 * 1024,
  /** Its services as JSON: they are in every row that the host announces. */
  servicesBytesMax: 128 * 1024,
  /** From one address: each waits for a person, so few are wanted. */
  loginsPerMinuteMax: 60,
  loginsWaitingPerAddressMax: 100,
  loginsWaitingMax: 2_000,
  loginMetadataBytesMax: 64 * 1024,
  /** Wrong tokens, codes and verifiers before a login is given up. */
  loginFailuresMax: 10,
  /** An authorization header; real ones have a few hundred bytes. */
  credentialBytesMax: 8 * 1024,
  liveTokensPerOrgMax: 1_000,
  appsPerOrgMax: 5_000,
  /** Also those whose apps are gone: a network's number is never given twice. */
  networksPerOrgMax: 10_000,
  /** Of all organizations, in one list. */
  appsPerListMax: 10_000,
  /** Destroyed ones, the newest, in one list beside those that exist. */
  goneMachinesPerListMax: 10_000,
  /** How long what ended can still be read: destroyed machines, ended tokens, the progress of releases, builds. */
  endedKeptMs: 30 * 24 * 3_600_000,
  /** A packed build context. */
  buildContextBytesMax: 4 * 1024 * 1024 * 1024,
  machinesPerAppMax: 10_000,
  machinesPerHostMax: 2_000,
  eventsPerMachineMax: 200,
  versionsPerMachineMax: 50,
  /** MCH-50. */
  waitSecondsMax: 60,
  /** Leases: MCH-57 clients ask for at most a few minutes. */
  leaseSecondsMax: 3600,
  /** 13.1. */
  killTimeoutSecondsMax: 300,
  execSecondsDefault: 60,
  execSecondsMax: 300,
  execOutputBytesMax: 4 * 1024 * 1024,
  /** A program with open streams, as a terminal: it keeps its machine awake for as long. */
  programSecondsMax: 12 * 3600,
  /** Its command as a query: what a request's head takes. */
  programQueryBytesMax: 12 * 1024,
  programsPerHostMax: 1_000,
  /** Requests held for one sleeping app. */
  heldRequestsPerAppMax: 10_000,
  /** PRX-36. */
  holdMsMax: 60_000,
  /** CONF-9: what fits HAProxy's buffer is replayed; a larger body is streamed. */
  secretBytesMax: 64 * 1024,
  secretsPerAppMax: 1_000,
  metadataKeysMax: 100,
  /** 13.1: image and root filesystem. */
  imageBytesMax: 8 * 1024 * 1024 * 1024,
  snapshotsPerVolumeMax: 200,
  /** Writers stand still for at most this long while a volume is copied where the file system has no copy-on-write. */
  volumeFreezeMsMax: 10_000,
  /** A guest that has not written its volumes out by then is copied as it is. */
  volumeSyncMsMax: 10_000,
  /** How long a start waits for a volume that is still being filled. */
  volumeWaitMsMax: 5 * 60_000,
  logLineBytesMax: 32 * 1024,
  logBytesPerMachineMax: 64 * 1024 * 1024,
  /** A machine that writes more waits, once it has written so much at once. */
  logBytesPerSecondMax: 4 * 1024 * 1024,
  logBurstBytesMax: 16 * 1024 * 1024,
  logLinesPerReadMax: 5_000,
} as const
