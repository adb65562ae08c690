export {
  grantScope,
  mintBuildPassword,
  registryIssuer,
  registryService,
  signRegistryToken,
  verifyRegistryUser,
  type Grant,
} from './registry-token.ts'
export { createBuild, discardOldBuilds, runBuild, takeBuild, type BuildLine } from './builds.ts'
export { endClientBuild, noteClientBuild, type ClientBuild } from './client-builds.ts'
