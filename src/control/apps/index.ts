export {
  appRef,
  createApp,
  describeApps,
  findApp,
  getApp,
  getAppById,
  holdApp,
  listApps,
  markDeployed,
  whereItAnswers,
  type AppRecord,
} from './apps.ts'
export { listSecrets, openSecrets, setSecrets } from './secrets.ts'
