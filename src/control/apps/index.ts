export {
  appRef,
  appsMatching,
  countApps,
  createApp,
  describeApps,
  findApp,
  getApp,
  getAppById,
  holdApp,
  listApps,
  markDeployed,
  whereItAnswers,
  type AppFilter,
  type AppRecord,
} from './apps.ts'
export { listSecrets, openSecrets, setSecrets } from './secrets.ts'
